//! Parameters as forms carry them.

use std::collections::BTreeMap;

/// `a=1&b=2`. moto checks a signature against what it encodes anew, with `+` for a space as here.
pub fn encode(parameters: &[(&str, &str)]) -> String {
    let pair = |(key, value): &(&str, &str)| format!("{}={}", quote(key), quote(value));
    parameters.iter().map(pair).collect::<Vec<_>>().join("&")
}

fn quote(text: &str) -> String {
    let byte = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        b' ' => '+'.to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

pub fn decode(form: &str) -> BTreeMap<String, String> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (unquote(key), unquote(value))
    };
    form.split('&').filter(|p| !p.is_empty()).map(pair).collect()
}

fn unquote(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (other, _) => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let form = encode(&[("Filter.1.Value.1", "a b&c=d/e+%é"), ("Empty", "")]);
        assert_eq!(form, "Filter.1.Value.1=a+b%26c%3Dd%2Fe%2B%25%C3%A9&Empty=");
        let back = decode(&form);
        assert_eq!(back["Filter.1.Value.1"], "a b&c=d/e+%é");
        assert_eq!(back["Empty"], "");
        assert_eq!(decode("A=x%20y")["A"], "x y");
    }
}
