//! Reads the text of a `.env.local`: `NAME=value` lines, comments, quotes. It expands nothing and runs nothing.

/// The variables of a text in order, and the numbers of the lines that are no variable.
///
/// A value may stand in single quotes (taken as it is) or double quotes (with `\n`, `\"` and `\\`); unquoted, it ends
/// before ` #`. `export NAME=value` is accepted, because people share one file with their shell.
pub(super) fn parse(text: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let mut variables = Vec::new();
    let mut bad_lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Some(variable) => variables.push(variable),
            None => bad_lines.push(index + 1),
        }
    }
    (variables, bad_lines)
}

fn parse_line(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return None;
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some('\'') => single_quoted(&value[1..])?,
        Some('"') => double_quoted(&value[1..])?,
        _ => value.split(" #").next().unwrap_or_default().trim_end().to_owned(),
    };
    Some((name.to_owned(), value))
}

fn single_quoted(rest: &str) -> Option<String> {
    let (value, after) = rest.split_once('\'')?;
    is_nothing_or_comment(after).then(|| value.to_owned())
}

fn double_quoted(rest: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return is_nothing_or_comment(chars.as_str()).then_some(value),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
}

fn is_nothing_or_comment(after: &str) -> bool {
    let after = after.trim_start();
    after.is_empty() || after.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_and_values() {
        let cases = [
            ("A=b", "b"),
            ("export A=b", "b"),
            (" A = b # why", "b"),
            ("A=b#c", "b#c"),
            ("A='b # c' # why", "b # c"),
            (r#"A="b \"c\"\n""#, "b \"c\"\n"),
            ("A=", ""),
        ];
        for (line, value) in cases {
            assert_eq!(parse(line), (vec![("A".to_owned(), value.to_owned())], vec![]), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_variable_is_reported_by_its_number() {
        for line in ["hello", "=b", "A B=c", "A='open", "A=\"open", "A='b' c"] {
            assert_eq!(parse(&format!("# comment\n\n{line}\n")), (vec![], vec![3]), "{line}");
        }
    }
}
