//! Just enough of Rust's grammar to find paths, imports and tests in a file, without a parser.

use std::ops::Range;

/// A path as it is written or imported, such as `std::time::Instant::now` or `println!`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Byte offset in the file.
    pub offset: usize,
    /// The segments of the path; a macro's last one ends in `!`.
    pub segments: Vec<String>,
    /// The new name, where an import renames.
    pub renamed: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    PathSeparator,
    Sign(char),
}

/// `text` with comments and the contents of strings and characters replaced by spaces, so that
/// offsets and lines stay as they are.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'\'' => character_end(bytes, at).unwrap_or(at),
            b'r' if at == 0
                || !is_word(bytes[at - 1])
                || bytes[at - 1] == b'b'
                || bytes[at - 1] == b'c' =>
            {
                raw_string_end(bytes, at).unwrap_or(at)
            }
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    // Only whole comments and literals were replaced, byte by byte by ASCII spaces.
    String::from_utf8_lossy(&out).into_owned()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of a character literal, or nothing where the quote opens a lifetime.
fn character_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let closing = bytes.get(at + 3..)?.iter().position(|byte| *byte == b'\'')?;
        return Some(at + 3 + closing + 1);
    }
    let length = match bytes.get(at + 1)? {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    (bytes.get(at + 1 + length) == Some(&b'\'')).then_some(at + length + 2)
}

fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let length = bytes[open + 1..].windows(closing.len()).position(|window| window == closing);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + closing.len()))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn tokens(blanked: &str) -> Vec<(usize, Token<'_>)> {
    let bytes = blanked.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            byte if byte.is_ascii_whitespace() => {}
            byte if is_word(byte) => {
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                tokens.push((start, Token::Word(&blanked[start..at])));
            }
            b':' if bytes.get(at) == Some(&b':') => {
                at += 1;
                tokens.push((start, Token::PathSeparator));
            }
            byte => tokens.push((start, Token::Sign(char::from(byte)))),
        }
    }
    tokens
}

/// Every path that blanked code writes, imports expanded.
pub fn mentions(blanked: &str) -> Vec<Mention> {
    let tokens = tokens(blanked);
    let mut mentions = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let previous = at.checked_sub(1).map(|index| tokens[index].1);
        match tokens[at].1 {
            Token::Word("use")
                if tokens.get(at + 1).is_some_and(|next| next.1 != Token::Sign('<')) =>
            {
                at = import(&tokens, at + 1, &[], &mut mentions);
            }
            Token::Word(_) => {
                let (segments, end) = path(&tokens, at);
                // Neither a method or field of something, nor the name of a new function.
                let own = previous != Some(Token::Sign('.')) && previous != Some(Token::Word("fn"));
                if own {
                    mentions.push(Mention { offset: tokens[at].0, segments, renamed: None });
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    mentions
}

fn path(tokens: &[(usize, Token<'_>)], start: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    let mut at = start;
    while let Some((_, Token::Word(word))) = tokens.get(at) {
        segments.push((*word).to_string());
        at += 1;
        if !matches!(tokens.get(at), Some((_, Token::PathSeparator))) {
            break;
        }
        at += 1;
    }
    let next = |index: usize| tokens.get(index).map(|token| token.1);
    if next(at) == Some(Token::Sign('!'))
        && next(at + 1) != Some(Token::Sign('='))
        && let Some(last) = segments.last_mut()
    {
        last.push('!');
    }
    (segments, at)
}

/// Reads one import tree after `prefix` and returns the place behind it.
fn import(
    tokens: &[(usize, Token<'_>)],
    start: usize,
    prefix: &[String],
    mentions: &mut Vec<Mention>,
) -> usize {
    let mut segments = prefix.to_vec();
    let mut at = start;
    let offset = tokens.get(start).map_or(0, |token| token.0);
    loop {
        match tokens.get(at).map(|token| token.1) {
            Some(Token::Word("as")) => {
                let renamed = match tokens.get(at + 1) {
                    Some((_, Token::Word(name))) => Some((*name).to_string()),
                    _ => None,
                };
                mentions.push(Mention { offset, segments, renamed });
                return at + 2;
            }
            Some(Token::Word(word)) => {
                segments.push(word.to_string());
                at += 1;
            }
            Some(Token::PathSeparator) => at += 1,
            Some(Token::Sign('{')) => {
                at += 1;
                while let Some((_, token)) = tokens.get(at) {
                    match token {
                        Token::Sign('}') => return at + 1,
                        Token::Sign(',') => at += 1,
                        _ => at = import(tokens, at, &segments, mentions).max(at + 1),
                    }
                }
                return at;
            }
            _ => {
                mentions.push(Mention { offset, segments, renamed: None });
                return at;
            }
        }
    }
}

/// What `#[cfg(test)]` guards: byte ranges of items with a body, and the names of modules that
/// are files of their own.
pub fn tests(blanked: &str) -> (Vec<Range<usize>>, Vec<String>) {
    let mut ranges = Vec::new();
    let mut modules = Vec::new();
    let mut from = 0;
    while let Some(found) = blanked[from..].find("#[cfg(") {
        let start = from + found;
        let Some(length) = blanked[start..].find(']') else { break };
        let attribute_end = start + length + 1;
        let condition = &blanked[start..attribute_end];
        from = attribute_end;
        let words = tokens(condition);
        let says = |word| words.iter().any(|token| token.1 == Token::Word(word));
        if !says("test") || says("not") {
            continue;
        }
        let rest = &blanked[attribute_end..];
        let Some(length) = rest.find(['{', ';']) else { break };
        let head = &rest[..length];
        if rest.as_bytes()[length] == b';' {
            ranges.push(start..attribute_end + length);
            let mut words = head.split_whitespace().skip_while(|word| *word != "mod");
            modules.extend(words.nth(1).map(String::from));
            continue;
        }
        let end = closing_brace(blanked, attribute_end + length);
        ranges.push(start..end);
        from = end;
    }
    (ranges, modules)
}

fn closing_brace(blanked: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, byte) in blanked.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return index + 1;
        }
    }
    blanked.len()
}

/// The line, from 1, of a byte offset.
pub fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        mentions(&blank(code)).iter().map(|mention| mention.segments.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        let code = "a // b\n/* c /* d */ e */ f \"g\\\" h\" 'i' '\\'' r#\"j \" k\"# &'l m b\"n\" o";
        let words: Vec<String> = paths(code);
        assert_eq!(words, ["a", "f", "l", "m", "b", "o"]);
        assert_eq!(blank(code).len(), code.len());
        assert_eq!(blank("é = 'é';"), "é =     ;");
    }

    #[test]
    fn imports_are_expanded() {
        let code = "use std::{thread, time::{Instant as Clock, Duration}, net::*};";
        let found = mentions(&blank(code));
        let names: Vec<_> = found.iter().map(|mention| mention.segments.join("::")).collect();
        assert_eq!(names[..3], ["std::thread", "std::time::Instant", "std::time::Duration"]);
        assert!(names[3].starts_with("std::net"));
        assert_eq!(found[1].renamed.as_deref(), Some("Clock"));
    }

    #[test]
    fn methods_and_definitions_are_not_paths_and_macros_are() {
        assert_eq!(
            paths("self.rng(); fn getrandom() { println!(\"x\") } a != b"),
            ["self", "fn", "println!", "a", "b"]
        );
    }

    #[test]
    fn test_items_are_found() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}\n#[cfg(test)]\nmod other;\n#[cfg(not(test))]\nfn d() {}";
        let (ranges, modules) = tests(&blank(code));
        assert_eq!(modules, ["other"]);
        assert_eq!(ranges.len(), 2);
        assert!(code[ranges[0].clone()].contains("fn b"));
        assert!(!code[ranges[0].clone()].contains("fn c"));
    }
}
