//! Forms with files (`multipart/form-data`), read out of a body that is in memory and bounded already.
//!
//! Source: RFC 7578 and RFC 2046.

use bytes::Bytes;
use http::{HeaderMap, header};
use memchr::memmem;

use crate::rejection::Rejection;

/// Most parts of a form.
const PARTS_MAX: usize = 64;
/// Longest head of a part.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest boundary, as its standard has it.
const BOUNDARY_CHARS_MAX: usize = 70;

/// One part of a form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// The field's name.
    pub(super) name: String,
    /// Whether it is a file and not a text.
    pub(super) is_file: bool,
    /// What a file says it is.
    pub(super) content_type: Option<String>,
    /// Its value.
    pub(super) value: Bytes,
}

/// The boundary of a form's parts; `None` when the body is none.
pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
    let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (kind, params) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = param(params, "boundary")?;
    (1..=BOUNDARY_CHARS_MAX).contains(&boundary.len()).then_some(boundary)
}

/// Takes a form apart.
///
/// # Errors
/// 400 when the body is no form with this boundary, or has too many parts.
pub(super) fn parse(body: &Bytes, boundary: &str) -> Result<Vec<Part>, Rejection> {
    let malformed = || Rejection::invalid_request(None, "The request body is not the form that its type says.");
    let delimiter = format!("\r\n--{boundary}");
    let first = &delimiter.as_bytes()[2..];
    // What stands before the first delimiter means nothing.
    let mut at = match body.starts_with(first) {
        true => first.len(),
        false => memmem::find(body, delimiter.as_bytes()).ok_or_else(malformed)? + delimiter.len(),
    };
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let line_end = memmem::find(rest, b"\r\n").ok_or_else(malformed)?;
        if !rest[..line_end].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(malformed());
        }
        // The line end stays: a part without a head begins with an empty line.
        let head_at = at + line_end;
        let head_length = memmem::find(&body[head_at..], b"\r\n\r\n").ok_or_else(malformed)?;
        let value_at = head_at + head_length + 4;
        let length = memmem::find(&body[value_at..], delimiter.as_bytes()).ok_or_else(malformed)?;
        if parts.len() == PARTS_MAX || head_length > HEAD_BYTES_MAX {
            return Err(Rejection::invalid_request(None, format!("A form has at most {PARTS_MAX} short parts.")));
        }
        let head = std::str::from_utf8(&body[head_at..head_at + head_length]).map_err(|_| malformed())?;
        let part = read_head(head).ok_or_else(malformed)?;
        parts.push(Part { value: body.slice(value_at..value_at + length), ..part });
        at = value_at + length + delimiter.len();
    }
}

/// A part without its value, out of its head.
fn read_head(head: &str) -> Option<Part> {
    let mut part = Part::default();
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-disposition") {
            part.name = param(value, "name")?;
            part.is_file = param(value, "filename").is_some() || param(value, "filename*").is_some();
        } else if name.eq_ignore_ascii_case("content-type") {
            part.content_type = Some(value.trim().to_ascii_lowercase());
        }
    }
    (!part.name.is_empty()).then_some(part)
}

/// A parameter of a header's value: `name=token` or `name="text"`.
fn param(params: &str, wanted: &str) -> Option<String> {
    let mut rest = params;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (name, after) = rest.split_once(['=', ';'])?;
        // A word without a value, such as the `form-data` at the beginning.
        if rest.as_bytes().get(name.len()) == Some(&b';') {
            rest = after;
            continue;
        }
        let (value, after) = value_of(after);
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// The value at the beginning of a text, and what follows it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            char => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boundary_in(content_type: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        boundary(&headers)
    }

    #[test]
    fn the_boundary_is_a_parameter_of_the_type() {
        let cases = [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("Multipart/Form-Data;charset=utf-8; Boundary=\"a; b\"", Some("a; b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json", None),
        ];
        for (content_type, expected) in cases {
            assert_eq!(boundary_in(content_type).as_deref(), expected, "{content_type}");
        }
    }

    #[test]
    fn texts_and_files_are_told_apart() {
        let body = "before\r\n--b \r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\na \"cat\"\r\n--b\r\nContent-Type: image/PNG\r\nContent-Disposition: form-data; filename=\"a\\\"b;.png\"; name=image[]\r\n\r\n\r\n\x01--b\r\n\r\n--b\r\ncontent-disposition: form-data; name=\"empty\"\r\n\r\n\r\n--b--\r\nafter";
        let part = |name: &str, is_file, content_type: Option<&str>, value: &'static str| Part {
            name: name.to_owned(),
            is_file,
            content_type: content_type.map(str::to_owned),
            value: Bytes::from_static(value.as_bytes()),
        };
        let expected = [
            part("prompt", false, None, "a \"cat\""),
            part("image[]", true, Some("image/png"), "\r\n\x01--b\r\n"),
            part("empty", false, None, ""),
        ];
        assert_eq!(parse(&Bytes::from(body), "b").unwrap(), expected);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let many = "--b\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n".repeat(PARTS_MAX + 1) + "--b--";
        let long = format!("--b\r\ncontent-disposition: form-data; name={}\r\n\r\n\r\n--b--", "a".repeat(9_000));
        let bodies = [
            "",
            "--b",
            "--b\r\n",
            "--bx\r\ncontent-disposition: form-data; name=a\r\n\r\n\r\n--bx--",
            "--b\r\ncontent-disposition: form-data; name=a\r\n\r\nvalue",
            "--b\r\ncontent-disposition: form-data\r\n\r\n\r\n--b--",
            "--b\r\nno header\r\n\r\n\r\n--b--",
            &many,
            &long,
        ];
        for body in bodies {
            assert_eq!(parse(&Bytes::copy_from_slice(body.as_bytes()), "b").unwrap_err().status, 400, "{body:.60}");
        }
        assert_eq!(parse(&Bytes::from_static(b"--b--"), "b").unwrap(), []);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(body in prop::collection::vec(prop::sample::select(
            vec![&b"--b"[..], b"\r\n", b"\r", b"content-disposition: form-data; name=", b"\"", b"\\", b"a", b";", b"=", b"\xff", b"--"]), 0..40)) {
            let _outcome = parse(&Bytes::from(body.concat()), "b");
        }

        #[test]
        fn a_form_gives_back_what_was_put_in(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
            let mut body = Vec::new();
            for value in &values {
                body.extend_from_slice(b"--=-B1\r\ncontent-disposition: form-data; name=\"n\"\r\n\r\n");
                body.extend_from_slice(value);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"--=-B1--\r\n");
            let parts = parse(&Bytes::from(body), "=-B1").unwrap();
            let found: Vec<Vec<u8>> = parts.into_iter().map(|part| part.value.to_vec()).collect();
            prop_assert_eq!(found, values);
        }
    }
}
