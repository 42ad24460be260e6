//! `application/x-www-form-urlencoded`, as much of it as OAuth needs.

/// Name and value pairs in their order.
pub(crate) fn parse(encoded: &str) -> Vec<(String, String)> {
    encoded
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(encoded: &str) -> String {
    let bytes = encoded.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One value, with everything escaped that is not unreserved.
pub(crate) fn encode(plain: &str) -> String {
    plain.bytes().fold(String::with_capacity(plain.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_parsed_again() {
        let value = "http://localhost:1455/auth/callback?a=b&c=ü %";
        assert_eq!(parse(&format!("x=1&uri={}", encode(value)))[1], ("uri".to_owned(), value.to_owned()));
        assert_eq!(parse("a+b=%2"), [("a b".to_owned(), "%2".to_owned())]);
    }
}
