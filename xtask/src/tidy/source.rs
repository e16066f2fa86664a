//! Rust source split into code and comments, so that a rule sees only what it is about.
//!
//! Both views keep every line break, so line numbers hold. In the code view comments, the insides of
//! strings and inline test modules are blank; in the comment view everything else is.

/// The two views of one file.
pub(crate) struct Source {
    /// Code without comments and string contents.
    pub(crate) code: String,
    /// Comments alone.
    pub(crate) comments: String,
}

/// Where the scanner stands.
#[derive(Clone, Copy)]
enum State {
    Code,
    LineComment,
    /// Depth of nesting, from 1.
    BlockComment(u32),
    Text,
    /// Number of `#` that close it.
    RawText(usize),
}

impl Source {
    pub(crate) fn split(text: &str) -> Source {
        let mut splitter = Splitter {
            code: String::with_capacity(text.len()),
            comments: String::new(),
            state: State::Code,
        };
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let eaten = splitter.step(rest, c);
            rest = &rest[eaten..];
        }
        Source { code: splitter.code, comments: splitter.comments }
    }

    /// The code above the first inline test module.
    pub(crate) fn code_without_tests(&self) -> &str {
        match self.code.find("#[cfg(test)]\nmod tests {") {
            Some(start) => &self.code[..start],
            None => &self.code,
        }
    }
}

struct Splitter {
    code: String,
    comments: String,
    state: State,
}

impl Splitter {
    /// Takes what begins with `c` at the head of `rest`; returns the bytes taken.
    fn step(&mut self, rest: &str, c: char) -> usize {
        match self.state {
            State::Code => self.step_code(rest, c),
            State::LineComment => {
                if c == '\n' {
                    self.state = State::Code;
                }
                self.comment(c)
            }
            State::BlockComment(depth) => self.step_block(rest, c, depth),
            State::Text if c == '\\' => {
                let escaped = rest[1..].chars().next();
                self.blank(c) + escaped.map_or(0, |escaped| self.blank(escaped))
            }
            State::Text => {
                if c == '"' {
                    self.state = State::Code;
                    return self.both(c);
                }
                self.blank(c)
            }
            State::RawText(hashes) => {
                let closed = c == '"'
                    && rest[1..].chars().take(hashes).filter(|c| *c == '#').count() == hashes;
                if closed {
                    self.state = State::Code;
                    return self.both(c);
                }
                self.blank(c)
            }
        }
    }

    fn step_code(&mut self, rest: &str, c: char) -> usize {
        if rest.starts_with("//") {
            self.state = State::LineComment;
            return self.comment(c);
        }
        if rest.starts_with("/*") {
            self.state = State::BlockComment(1);
            return self.comment('/') + self.comment('*');
        }
        if c == '"' {
            self.state = State::Text;
            return self.both(c);
        }
        if let Some(hashes) = raw_text_hashes(rest, self.code.chars().next_back()) {
            self.state = State::RawText(hashes);
            return rest[..hashes + 2].chars().map(|c| self.both(c)).sum();
        }
        if let Some(length) = char_literal_length(rest) {
            return rest[..length].chars().map(|c| self.blank(c)).sum();
        }
        self.both(c)
    }

    fn step_block(&mut self, rest: &str, c: char, depth: u32) -> usize {
        if rest.starts_with("/*") {
            self.state = State::BlockComment(depth + 1);
            return self.comment('/') + self.comment('*');
        }
        if rest.starts_with("*/") {
            self.state = if depth == 1 { State::Code } else { State::BlockComment(depth - 1) };
            return self.comment('*') + self.comment('/');
        }
        self.comment(c)
    }

    fn both(&mut self, c: char) -> usize {
        self.code.push(c);
        self.comments.push(blank(c));
        c.len_utf8()
    }

    fn comment(&mut self, c: char) -> usize {
        self.code.push(blank(c));
        self.comments.push(c);
        c.len_utf8()
    }

    fn blank(&mut self, c: char) -> usize {
        self.code.push(blank(c));
        self.comments.push(blank(c));
        c.len_utf8()
    }
}

fn blank(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// Number of `#` when a raw string begins here.
fn raw_text_hashes(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let after = rest.strip_prefix('r')?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Bytes of the character literal that begins here; a lifetime is none.
fn char_literal_length(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        let end = inside[2..].find('\'')?;
        return Some(1 + 2 + end + 1);
    }
    inside[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: &str, comments: &str) {
        let source = Source::split(text);
        assert_eq!((source.code.trim_end(), source.comments.trim_end()), (code, comments));
        assert_eq!(source.code.matches('\n').count(), text.matches('\n').count());
    }

    #[test]
    fn comments_and_strings_leave_the_code_view() {
        check("a // b", "a", "  // b");
        check("f(\"x // y\") // z", "f(\"      \")", "            // z");
        check("\"a\\\"b\" c", "\"    \" c", "");
        check("r#\"a\"b\"# c", "r#\"   \"# c", "");
        check("/* a /* b */ c */ d", "                  d", "/* a /* b */ c */");
        check("'\"' x", "    x", "");
        check("'\\'' x", "     x", "");
        check("&'a str // b", "&'a str", "        // b");
        check("for\"x\"", "for\" \"", "");
    }

    #[test]
    fn code_above_the_tests_is_cut_there() {
        let source = Source::split("a();\n#[cfg(test)]\nmod tests {\n b();\n}\n");
        assert_eq!(source.code_without_tests(), "a();\n");
    }
}
