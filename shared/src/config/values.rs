//! How the texts of a configuration become values. Each function says what is wrong with a text and never echoes it:
//! the caller knows whether it may be shown.

use std::fmt;
use std::time::Duration;

use http::Uri;
use jiff::SignedDuration;

/// An absolute http or https url that paths are appended to: no query, no credentials, no slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    is_tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl BaseUrl {
    /// Reads a url.
    ///
    /// # Errors
    /// What is wrong with the text, in lower case and without the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "not a url".to_owned())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the url does not start with http:// or https://".to_owned()),
        };
        let authority = uri.authority().ok_or("the url names no host")?;
        if authority.as_str().contains('@') {
            return Err("the url holds credentials".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("the url has a query or a fragment".to_owned());
        }
        if text.ends_with('/') {
            return Err("the url ends with a slash".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("the url names no host".to_owned());
        }
        if authority.port_u16().is_none() && authority.as_str().len() > authority.host().len() {
            return Err("the port of the url is not a number up to 65535".to_owned());
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { text: text.to_owned(), is_tls, host, port, path })
    }

    /// The url as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is https.
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host name or address; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's own if none was written.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What a `Host` header says: the host, and the port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// The path that every request path starts with: empty, or starting with a slash and ending without one.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads a span such as `30s`, `1h 30m` or `500ms`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let span: SignedDuration = text.trim().parse().map_err(|_| "not a span of time".to_owned())?;
    Duration::try_from(span).map_err(|_| "a span of time cannot be negative".to_owned())
}

const SIZE_UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
    ("", 1),
];

/// Reads a size in bytes such as `128MiB`, `1GB` or `4096`.
pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let (digits, factor) = SIZE_UNITS
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|rest| (rest.trim_end(), *factor)))
        .unwrap_or((text, 1));
    let count: u64 = digits.parse().map_err(|_| "not a size in bytes".to_owned())?;
    count
        .checked_mul(factor)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "the size does not fit into memory addresses".to_owned())
}

/// Masks what must not be shown of a url: its user, its password and its query.
///
/// Any value is passed through here before it is shown, because a url with a password may stand under the wrong key.
pub(super) fn mask_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, "?****"),
        None => (rest, ""),
    };
    // The last at sign ends the credentials: a password may hold one, and may hold a slash.
    let rest = match rest.rsplit_once('@') {
        Some((_, host)) => format!("****@{host}"),
        None => rest.to_owned(),
    };
    format!("{scheme}://{rest}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_texts_with_units() {
        let cases =
            [("30s", 30_000), ("500ms", 500), ("5m", 300_000), ("2h", 7_200_000), ("1h 30m", 5_400_000), ("0s", 0)];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "-5s", "fast", "5 parsecs", "s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_texts_with_units() {
        let cases = [
            ("4096", 4096),
            ("64KiB", 65_536),
            ("128MiB", 134_217_728),
            ("1 GiB", 1 << 30),
            ("2MB", 2_000_000),
            ("7B", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "1.5MiB", "many", "12XB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_base_url_knows_its_parts() {
        let url = BaseUrl::parse("https://chatgpt.com/backend-api").unwrap();
        assert_eq!((url.is_tls(), url.host(), url.port(), url.path()), (true, "chatgpt.com", 443, "/backend-api"));
        assert_eq!(url.authority(), "chatgpt.com");
        let url = BaseUrl::parse("http://[::1]:8080").unwrap();
        assert_eq!((url.is_tls(), url.host(), url.port(), url.path()), (false, "::1", 8080, ""));
        assert_eq!(url.authority(), "[::1]:8080");
    }

    #[test]
    fn a_base_url_holds_nothing_but_a_place() {
        let bad = [
            "",
            "chatgpt.com",
            "ftp://x",
            "https://",
            "https://x/",
            "https://u:p@x",
            "https://x?q=1",
            "https://x/#a",
            "http://x:99999",
            "http://x:",
        ];
        for text in bad {
            assert!(BaseUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_shown_url_holds_no_credentials() {
        let cases = [
            ("postgres://u:p@h/db", "postgres://****@h/db"),
            ("postgres://u:p@ss/w@h/db?password=x", "postgres://****@h/db?****"),
            ("sqlite:///tmp/a.db", "sqlite:///tmp/a.db"),
            ("plain", "plain"),
        ];
        for (text, shown) in cases {
            assert_eq!(mask_url(text), shown);
        }
    }
}
