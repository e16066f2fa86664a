"use strict";
// Renders the OpenAPI description that stands in the page. Everything is text: nothing of it becomes markup.
const api = JSON.parse(document.getElementById("description").textContent);
const METHODS = ["get", "put", "post", "patch", "delete"];
// References are followed so deep; what lies deeper is named.
const DEPTH = 4;

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function target(pointer) {
  return pointer.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], api);
}

function resolved(value) {
  return value && value.$ref ? target(value.$ref) : value;
}

// What a schema is, in a few words.
function words(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const kinds = schema.oneOf || schema.anyOf;
  if (kinds) return kinds.map(words).join(" or ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const type = [].concat(schema.type || "anything").join(" or ");
  if (schema.items) return `${type} of ${words(schema.items)}`;
  const bounds = [];
  // Larger ones are those of the type, and cannot be told here to the last digit.
  const [least, most] = [schema.minimum, schema.maximum].map((bound) => (Number.isSafeInteger(bound) ? bound : ""));
  if (least !== "" || most !== "") bounds.push(`${least} to ${most}`.trim());
  if (schema.minLength !== undefined || schema.maxLength !== undefined) bounds.push(`${schema.minLength ?? 0} to ${schema.maxLength ?? ""} characters`);
  if (schema.pattern) bounds.push(schema.pattern);
  if (schema.format) bounds.push(schema.format);
  return bounds.length ? `${type} (${bounds.join(", ")})` : type;
}

// The fields of a schema, and of what it refers to.
function fields(schema, depth = 0) {
  const whole = resolved(schema);
  if (!whole || depth > DEPTH) return null;
  if (whole.items) return fields(whole.items, depth);
  const kinds = whole.oneOf || whole.anyOf;
  if (kinds) {
    const shown = kinds.map((kind) => fields(kind, depth + 1)).filter((node) => node !== null);
    return shown.length ? make("div", {}, ...shown) : null;
  }
  if (!whole.properties) return null;
  const needed = new Set(whole.required || []);
  const rows = Object.entries(whole.properties).map(([name, field]) => {
    const about = field.description || resolved(field).description;
    return make("li", {},
      make("code", { class: "name" }, name), needed.has(name) ? "" : "?", " ",
      make("code", {}, words(field)), about ? make("span", { class: "note" }, " " + about) : null,
      fields(field, depth + 1));
  });
  return make("ul", { class: "fields" }, ...rows);
}

// A value that fits a schema, for the line to copy.
function example(schema, depth = 0) {
  const whole = resolved(schema) || {};
  if (whole.enum) return whole.enum[0];
  const kinds = whole.oneOf || whole.anyOf;
  if (kinds) return example(kinds[0], depth + 1);
  switch ([].concat(whole.type)[0]) {
    case "object": {
      if (depth > DEPTH) return {};
      const needed = (whole.required || []).map((name) => [name, example(whole.properties[name], depth + 1)]);
      return Object.fromEntries(needed);
    }
    case "array": return [example(whole.items, depth + 1)];
    case "integer": return Math.max(whole.minimum ?? 0, 0);
    case "boolean": return false;
    default: return "text";
  }
}

function quoted(text) {
  return "'" + text.replaceAll("'", "'\\''") + "'";
}

function curl(method, path, call, parameters) {
  const query = parameters.filter((one) => one.in === "query" && one.required);
  const asked = query.map((one) => `${one.name}=${encodeURIComponent(example(one.schema))}`).join("&");
  const parts = ["curl"];
  if (method !== "get") parts.push("-X", method.toUpperCase());
  const types = Object.keys((call.requestBody || {}).content || {});
  if (types.length) {
    parts.push("-H", quoted("content-type: " + types[0]));
    const schema = call.requestBody.content[types[0]].schema;
    parts.push("-d", quoted(JSON.stringify(example(schema))));
  }
  parts.push(quoted(location.origin + path + (asked ? "?" + asked : "")));
  return parts.join(" ");
}

function content(title, told) {
  const parts = Object.entries(told || {}).map(([type, { schema }]) =>
    make("div", {}, make("code", {}, type), ": ", make("code", {}, words(schema)), fields(schema)));
  return parts.length ? make("div", {}, title ? make("h3", {}, title) : null, ...parts) : null;
}

function parameterTable(parameters) {
  if (!parameters.length) return null;
  const rows = parameters.map((one) => make("tr", {},
    make("td", {}, make("code", { class: "name" }, one.name), one.required ? "" : "?", " ", make("span", { class: "note" }, one.in)),
    make("td", {}, make("code", {}, words(one.schema)), " ", one.description || "")));
  return make("div", {}, make("h3", {}, "Parameters"), make("table", {}, ...rows));
}

function replies(call) {
  const rows = Object.entries(call.responses).map(([status, reply]) => {
    const whole = resolved(reply);
    const headers = Object.keys(whole.headers || {});
    return make("tr", {}, make("td", {}, make("code", {}, status)),
      make("td", {}, whole.description,
        headers.length ? make("div", { class: "note" }, "headers: " + headers.join(", ")) : null,
        reply.$ref ? null : content(null, whole.content)));
  });
  return make("div", {}, make("h3", {}, "Replies"), make("table", {}, ...rows));
}

function details(method, path, call) {
  const parameters = (call.parameters || []).map(resolved);
  const line = curl(method, path, call, parameters);
  const copy = make("button", { type: "button", onclick: () => navigator.clipboard.writeText(line) }, "copy");
  return make("div", {}, make("pre", {}, copy, line), parameterTable(parameters),
    content("Body", (call.requestBody || {}).content), replies(call));
}

function shown(method, path, call) {
  const node = make("details", { class: "call", id: `${method} ${path}` },
    make("summary", {}, make("b", {}, method.toUpperCase()), make("code", {}, path), make("span", {}, call.summary || "")));
  // What nobody opened is not made.
  node.addEventListener("toggle", () => node.append(details(method, path, call)), { once: true });
  return node;
}

// `/v1/topics/{topic}` stands among the topics, `/healthz` among what has no such word.
function group(path) {
  const word = path.split("/")[2];
  return path.startsWith("/v1/") && word ? word : "door";
}

function render() {
  document.querySelector("h1").append(`${api.info.title} ${api.info.version}`);
  document.getElementById("about").append(api.info.description || "");
  const main = document.querySelector("main");
  const groups = new Map();
  const calls = [];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((one) => methods[one])) {
      const node = shown(method, path, methods[method]);
      calls.push([node, `${method} ${path} ${methods[method].summary}`.toLowerCase()]);
      const name = group(path);
      if (!groups.has(name)) groups.set(name, make("section", {}, make("h2", {}, name)));
      groups.get(name).append(node);
    }
  }
  main.append(...groups.values());
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const [node, text] of calls) node.hidden = !text.includes(wanted);
    for (const section of groups.values()) section.hidden = ![...section.querySelectorAll("details.call")].some((node) => !node.hidden);
  });
}

render();
