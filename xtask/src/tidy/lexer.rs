//! Rust text split into what the compiler reads and what people read. Enough of Rust's lexical
//! grammar to tell strings, characters, lifetimes and nested comments apart; no more.

/// Two texts: one without comments and strings, one with nothing but comments. What is left out
/// is blank, so that every byte stands where it stands in the source.
pub(super) struct Split {
    pub(super) code: String,
    pub(super) comments: String,
}

pub(super) fn split(source: &str) -> Split {
    let mut lexer = Lexer {
        rest: source,
        code: String::with_capacity(source.len()),
        comments: String::with_capacity(source.len()),
    };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    Split { code: lexer.code, comments: lexer.comments }
}

struct Lexer<'a> {
    rest: &'a str,
    code: String,
    comments: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Code,
    Comment,
    Blank,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let after_name = self.code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if rest.starts_with("//") {
            self.take(rest.find('\n').unwrap_or(rest.len()), Kind::Comment);
        } else if rest.starts_with("/*") {
            self.take(block_comment(rest), Kind::Comment);
        } else if let Some(hashes) = raw_string(rest).filter(|_| !after_name) {
            let open = rest.find('"').expect("a raw string has a quote") + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let length = rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len());
            self.take(length, Kind::Blank);
        } else if rest.starts_with('"') {
            self.take(string(rest), Kind::Blank);
        } else if let Some(length) = character(rest) {
            self.take(length, Kind::Blank);
        } else {
            self.take(rest.chars().next().map_or(0, char::len_utf8), Kind::Code);
        }
    }

    /// Moves the next bytes to where they belong. Line ends stay in both texts.
    fn take(&mut self, length: usize, kind: Kind) {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        for c in taken.chars() {
            keep_or_blank(&mut self.code, c, matches!(kind, Kind::Code));
            keep_or_blank(&mut self.comments, c, matches!(kind, Kind::Comment));
        }
    }
}

/// Line ends are kept in any case.
pub(super) fn keep_or_blank(text: &mut String, c: char, keep: bool) {
    if keep || c == '\n' {
        text.push(c);
    } else {
        text.extend(std::iter::repeat_n(' ', c.len_utf8()));
    }
}

/// The length of a comment `/* … */`, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The number of `#` of a raw string that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a string with its quotes.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character with its quotes; none for a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let escaped = escape.chars().next()?.len_utf8();
        return Some(2 + escaped + escape[escaped..].find('\'')? + 1);
    }
    let first = inside.chars().next()?.len_utf8();
    inside[first..].starts_with('\'').then_some(first + 2)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn code_and_comments_are_told_apart() {
        for (source, code, comments) in [
            ("a // b\nc", "a c", "// b"),
            ("a /* b /* c */ d */ e", "a e", "/* b /* c */ d */"),
            ("f(\"// \\\" a\") // b", "f( )", "// b"),
            ("r#\"a\" // \"# b", "b", ""),
            ("for\"a\" b", "for b", ""),
            ("'\"' 'a '\\'' b", "'a b", ""),
            ("'ü' \"ü\" a // ü", "a", "// ü"),
            ("x: &'a str = \"\n\"; y", "x: &'a str = ; y", ""),
        ] {
            let split = split(source);
            assert_eq!(words(&split.code), code, "{source}");
            assert_eq!(words(&split.comments), comments, "{source}");
            for text in [split.code, split.comments] {
                assert_eq!(text.len(), source.len(), "{source}");
                assert_eq!(text.lines().count(), source.lines().count(), "{source}");
            }
        }
    }

    fn words(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
