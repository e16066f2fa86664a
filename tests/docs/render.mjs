// Runs the script of the page `/docs` against as much of a document as it uses, opens every call, and prints what is shown as JSON.
//
// usage: node render.mjs PAGE_FILE
import { readFileSync } from "node:fs";
import vm from "node:vm";

class Node {
  constructor(tag) {
    Object.assign(this, { tag, children: [], attributes: {}, listeners: {}, hidden: false });
  }
  append(...children) {
    for (const child of children) {
      if (!(child instanceof Node) && typeof child !== "string") throw new Error(`no node and no text: ${child}`);
      this.children.push(child);
    }
  }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  get textContent() { return this.children.map((child) => (child instanceof Node ? child.textContent : child)).join(""); }
  *all() {
    yield this;
    for (const child of this.children) if (child instanceof Node) yield* child.all();
  }
  querySelectorAll() { return [...this.all()].filter((node) => node.attributes.class === "call"); }
}

const page = readFileSync(process.argv[2], "utf8");
const between = (start, end) => page.slice(page.indexOf(start) + start.length, page.indexOf(end, page.indexOf(start)));
const parts = { h1: new Node("h1"), main: new Node("main"), about: new Node("p"), find: new Node("input"), description: new Node("script") };
parts.description.append(between('type="application/json">', "</script>"));
const document = {
  getElementById: (id) => parts[id],
  querySelector: (tag) => parts[tag],
  createElement: (tag) => new Node(tag),
};
const location = { origin: "http://localhost:7080" };
vm.runInNewContext(between("<script>", "</script>"), { document, location, navigator: {}, encodeURIComponent });

const calls = parts.main.querySelectorAll();
for (const call of calls) call.listeners.toggle();
const shown = calls.map((call) => ({ name: call.attributes.id, line: [...call.all()].find((node) => node.tag === "pre").textContent, text: call.textContent }));
parts.find.listeners.input({ target: { value: "REDRIVE" } });
const found = calls.filter((call) => !call.hidden).map((call) => call.attributes.id);
console.log(JSON.stringify({ title: parts.h1.textContent, shown, found }));
