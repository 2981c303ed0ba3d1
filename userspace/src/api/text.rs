//! Numbers and sets of addresses as people read them.

use crate::model::Addresses;

/// `65,534`
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `10.0.0.9/24`, or `65,534 addresses 10.9.0.1-10.9.255.254/16`
pub fn counted(addresses: &Addresses) -> String {
    counted_span(addresses.count(), &addresses.to_string())
}

/// As [`counted`], of a number and what it says in short.
pub fn counted_span(count: u64, span: &str) -> String {
    match count {
        1 => span.to_owned(),
        n => format!("{} addresses {span}", thousands(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_three() {
        for (n, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (65_534, "65,534"), (1_048_576, "1,048,576")]
        {
            assert_eq!(thousands(n), text);
        }
        assert_eq!(counted_span(1, "10.0.0.9/24"), "10.0.0.9/24");
        assert_eq!(counted_span(2, "10.0.0.9-10.0.0.10/24"), "2 addresses 10.0.0.9-10.0.0.10/24");
    }
}
