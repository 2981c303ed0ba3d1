//! Text of the defaults file -> tunables and complaints.
//!
//! The file is also sourced by shells, so it is read as a shell would read plain assignments: comments,
//! quotes, `export`, several on a line, the last one wins. Nothing is expanded or run; a value with
//! `$` or a backquote is a complaint, not a surprise.

use std::time::Duration;

use crate::model::Tunables;

/// Something wrong in the file: the default (or an earlier line) holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Counted from 1.
    pub line: usize,
    /// Names the setting, the reason and the remedy.
    pub problem: String,
}

/// Reads the whole text. Unknown names are ignored: the file may serve others too.
pub fn parse(text: &str) -> (Tunables, Vec<Complaint>) {
    let mut tunables = Tunables::default();
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let result = words(line).and_then(|words| assign_all(&mut tunables, &words));
        if let Err(problem) = result {
            complaints.push(Complaint { line: index + 1, problem });
        }
    }
    (tunables, complaints)
}

fn assign_all(tunables: &mut Tunables, words: &[String]) -> Result<(), String> {
    let words = match words {
        [export, rest @ ..] if export == "export" => rest,
        all => all,
    };
    for word in words {
        match word.split_once('=') {
            Some((name, value)) if is_name(name) => set(tunables, name, value)?,
            Some(_) | None if is_name(word) => {} // `export NAME`
            Some(_) | None => return Err(format!("'{word}' is not an assignment: write NAME=value")),
        }
    }
    Ok(())
}

fn is_name(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Splits a line into words as a shell does, without expanding anything.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() => break,
            c if c.is_whitespace() || c == ';' => words.extend(word.take()),
            quote @ ('\'' | '"') => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(format!("the quote {quote} is not closed on this line")),
                        Some(c) if c == quote => break,
                        Some('\\') if quote == '"' => word.extend(chars.next()),
                        Some(c) => word.push(c),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Longest accepted time: a slip of a digit must not switch a time-out off.
const LONGEST: Duration = Duration::from_secs(86_400);

fn set(t: &mut Tunables, name: &str, value: &str) -> Result<(), String> {
    let wrong = |wanted: &str| format!("{name}='{value}' is ignored: {wanted}");
    let flag = || match value {
        "" | "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(wrong("use 1 for yes, or 0 or nothing for no")),
    };
    let seconds = |least: Duration| {
        let text = "use seconds, as 5 or 0.5";
        let d = duration(value).ok_or_else(|| wrong(text))?;
        if d < least || d > LONGEST {
            let least = Tunables::seconds(least);
            return Err(wrong(&format!("use {least} to {} seconds", LONGEST.as_secs())));
        }
        Ok(d)
    };
    let within = |least: u32, most: u32| match value.parse::<u32>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        Ok(_) | Err(_) => Err(wrong(&format!("use a whole number from {least} to {most}"))),
    };
    let count = || within(1, 1000);
    let ms = Duration::from_millis;
    match name {
        "NOBCASTPING" => t.no_broadcast_ping = flag()?,
        "NOIPUNIQUE" => t.no_unique_check = flag()?,
        "IP_NOLINKCHECK" => t.no_link_check = flag()?,
        "IP_WAIT_LINKDOWN" => t.link_down_wait = seconds(Duration::ZERO)?,
        "IP_MAX_LINKCHK" => t.link_checks = count()?,
        "IP_PINGTIME" => t.ping_wait = seconds(ms(10))?,
        "IP_PINGTRIES" => t.ping_tries = count()?,
        "IP_QUICKCHECK_TIMEOUT" => t.quickcheck_timeout = seconds(ms(100))?,
        "IP_QUICKCHECK_INTERVAL" => t.quickcheck_interval = seconds(ms(100))?,
        "IP_RESTORE_TIMEOUT" => t.restore_timeout = seconds(ms(100))?,
        "IP_REMOVE_TIMEOUT" => t.remove_timeout = seconds(ms(100))?,
        "IP_RECOVER_TIMEOUT" => t.recover_timeout = seconds(ms(100))?,
        "EC2_QUICKCHECK_TIMEOUT" => t.ec2.quickcheck_timeout = seconds(ms(100))?,
        "EC2_QUICKCHECK_INTERVAL" => t.ec2.quickcheck_interval = seconds(ms(100))?,
        "EC2_RESTORE_TIMEOUT" => t.ec2.restore_timeout = seconds(ms(100))?,
        "EC2_REMOVE_TIMEOUT" => t.ec2.remove_timeout = seconds(ms(100))?,
        "EC2_RECOVER_TIMEOUT" => t.ec2.recover_timeout = seconds(ms(100))?,
        "EC2_MAX_RETRY" => t.ec2.max_retry = within(0, 100)?,
        "EC2_CALL_TIMEOUT" => t.ec2.call_timeout = seconds(ms(100))?,
        "IP_ANNOUNCE_COUNT" => t.announce_count = count()?,
        "IP_ANNOUNCE_REPEAT" => t.announce_repeat = within(0, 1000)?,
        // Advertisements are a second apart at least (RFC 4861 section 7.2.6).
        "IP_ANNOUNCE_REPEAT_DELAY" => t.announce_repeat_delay = seconds(ms(1000))?,
        "IP_ANNOUNCE_REFRESH" => {
            let every = seconds(Duration::ZERO)?;
            if !every.is_zero() && every < ms(1000) {
                return Err(wrong("use 0 for never, or 1 to 86400 seconds"));
            }
            t.announce_refresh = every;
        }
        "IP_ANNOUNCE_PACE" => t.announce_pace = within(1, 10_000_000)?,
        _ => {}
    }
    Ok(())
}

/// Decimal seconds, exactly: `5`, `0.25`, `.5`.
fn duration(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || fraction.len() > 9
    {
        return None;
    }
    let seconds = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str, name: &str) -> String {
        let (tunables, complaints) = parse(text);
        assert_eq!(complaints, [], "{text}");
        tunables.pairs().into_iter().find(|(n, _)| n == name).unwrap().1
    }

    #[test]
    fn shell_forms() {
        for text in [
            "IP_PINGTRIES=7",
            "  IP_PINGTRIES=7  # comment",
            "export IP_PINGTRIES=7",
            "IP_PINGTRIES='7'",
            "IP_PINGTRIES=\"7\"; OTHER='a b # c'",
            "# IP_PINGTRIES=9\n\nIP_PINGTRIES=8\nIP_PINGTRIES=7\r\n",
            "UNKNOWN=$(reboot) export=1 IP_PINGTRIES=7",
            "export IP_PINGTRIES\nIP_PINGTRIES=\\7",
        ] {
            assert_eq!(value(text, "IP_PINGTRIES"), "7", "{text}");
        }
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(duration("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(duration(".5"), Some(Duration::from_millis(500)));
        assert_eq!(duration("12"), Some(Duration::from_secs(12)));
        for bad in ["", ".", "-1", "1s", "1e3", "+1", " 1", "0.1234567890", "99999999999999999999"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(value("IP_PINGTIME=0.25", "IP_PINGTIME"), "0.25");
    }

    #[test]
    fn flags() {
        assert_eq!(value("NOBCASTPING=1", "NOBCASTPING"), "1");
        assert_eq!(value("NOBCASTPING=", "NOBCASTPING"), "0");
        assert_eq!(value("NOIPUNIQUE=\"\"", "NOIPUNIQUE"), "0");
    }

    #[test]
    fn wrong_values_keep_the_default_and_name_the_line() {
        let text = "\nIP_PINGTRIES=0\nIP_PINGTIME=$X\nNOIPUNIQUE=yes\nIP_WAIT_LINKDOWN='3\nwhat is this\n\
                    IP_QUICKCHECK_TIMEOUT=0\nIP_MAX_LINKCHK=2";
        let (tunables, complaints) = parse(text);
        assert_eq!(tunables, Tunables { link_checks: 2, ..Tunables::default() });
        let lines: Vec<usize> = complaints.iter().map(|c| c.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 7]);
        assert!(complaints[0].problem.contains("IP_PINGTRIES='0'"));
    }

    #[test]
    fn announcements() {
        for (text, name, shown) in [
            ("IP_ANNOUNCE_REPEAT=0", "IP_ANNOUNCE_REPEAT", "0"),
            ("IP_ANNOUNCE_REFRESH=60", "IP_ANNOUNCE_REFRESH", "60"),
            ("IP_ANNOUNCE_PACE=10000000", "IP_ANNOUNCE_PACE", "10000000"),
        ] {
            assert_eq!(value(text, name), shown, "{text}");
        }
        for wrong in [
            "IP_ANNOUNCE_COUNT=0",
            "IP_ANNOUNCE_REPEAT=1001",
            "IP_ANNOUNCE_REPEAT_DELAY=0.9",
            "IP_ANNOUNCE_REFRESH=0.5",
            "IP_ANNOUNCE_PACE=0",
        ] {
            let (tunables, complaints) = parse(wrong);
            assert_eq!((tunables, complaints.len()), (Tunables::default(), 1), "{wrong}");
        }
    }

    #[test]
    fn the_example_and_the_documentation_say_what_holds() {
        let example = include_str!("../../../../deploy/vipd.default");
        assert_eq!(parse(example), (Tunables::default(), vec![]));
        let settings: Vec<String> =
            example.lines().filter(|l| l.contains('=')).map(|l| l.trim_start_matches('#').into()).collect();
        let pairs: Vec<String> =
            Tunables::default().pairs().iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(settings, pairs);
        let table = include_str!("../../../../docs/tunables.md");
        for (name, value) in Tunables::default().pairs() {
            assert!(table.contains(&format!("| `{name}` | {value} |")), "{name}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let text: String = Tunables::default().pairs().iter().map(|(n, v)| format!("{n}={v}\n")).collect();
        assert_eq!(parse(&text), (Tunables::default(), vec![]));
        assert_eq!(Tunables::default().pairs().len(), 24);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_leaves_bounds(text in "(?s)([A-Z_]{0,12}[= '\"$;#\\\\]?[0-9.a-z]{0,6}\n?){0,8}|.{0,200}") {
            let (tunables, complaints) = parse(&text);
            prop_assert!(tunables.ping_tries >= 1 && tunables.quickcheck_timeout <= LONGEST);
            prop_assert!(complaints.iter().all(|c| c.line >= 1 && c.line <= text.lines().count()));
        }

        #[test]
        fn any_time_in_bounds_survives(ms in 100u64..86_400_000) {
            let d = Duration::from_millis(ms);
            let (t, complaints) = parse(&format!("IP_RESTORE_TIMEOUT={}", Tunables::seconds(d)));
            prop_assert_eq!(t.restore_timeout, d);
            prop_assert!(complaints.is_empty());
        }
    }
}
