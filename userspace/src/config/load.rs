//! Reads `/etc/vipd/node.toml`; an error names file, line, key, reason and remedy.

use std::{
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{NodeConfig, validate::validate};

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}; name the file with 'vipd --config FILE', an example is docs/node.toml.md", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// All that is wrong, so that one round of editing suffices.
    #[error("{}", lines(.0))]
    Wrong(Vec<Fault>),
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub path: PathBuf,
    /// Counted from 1; None when it is about something that is not there.
    pub line: Option<usize>,
    /// Dotted: `interface.eth0.broadcast-ping-rate`; empty when no key is to blame.
    pub key: String,
    pub reason: String,
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// Reads and validates a node's file.
pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
    let text = fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(path, &text).map_err(ConfigError::Wrong)
}

fn parse(path: &Path, text: &str) -> Result<NodeConfig, Vec<Fault>> {
    let fault = |span: Option<Range<usize>>, key: String, reason: &str, remedy: &str| Fault {
        path: path.to_owned(),
        line: span.map(|s| line_of(text, s.start)),
        key,
        reason: reason.to_owned(),
        remedy: remedy.to_owned(),
    };
    let document = DeTable::parse(text).map_err(|e| {
        let remedy = "write TOML: key = \"value\", one a line";
        vec![fault(e.span(), String::new(), e.message(), remedy)]
    })?;
    let config: NodeConfig = toml::from_str(text).map_err(|e| {
        let (reason, remedy) = explain(e.message());
        let missing = e.message().starts_with("missing field");
        let key = match quoted(e.message()) {
            Some(name) if missing => dotted(&section_at(document.get_ref(), e.span().unwrap_or(0..0)), name),
            _ => e.span().map(|s| key_at(document.get_ref(), &s)).unwrap_or_default(),
        };
        let span = if missing && !key.contains('.') { None } else { e.span() };
        vec![fault(span, key, &reason, &remedy)]
    })?;
    let faults: Vec<Fault> = validate(&config)
        .into_iter()
        .map(|w| fault(find(document.get_ref(), &w.key), w.key.join("."), &w.reason, &w.remedy))
        .collect();
    if faults.is_empty() { Ok(config) } else { Err(faults) }
}

/// The parser's words, and what to do about them.
fn explain(message: &str) -> (String, String) {
    let name = quoted(message).unwrap_or_default();
    let first = message.lines().next().unwrap_or_default().to_owned();
    if message.starts_with("missing field") {
        ("is missing".to_owned(), example(name))
    } else if message.starts_with("unknown field") {
        (first, "correct the spelling or remove the line".to_owned())
    } else if message.contains("socket address") {
        (first, "write ADDRESS:PORT, as \"192.0.2.1:7411\" or \"[2001:db8::1]:7411\"".to_owned())
    } else {
        (first, String::new())
    }
}

fn example(key: &str) -> String {
    match key {
        "name" => "add: name = \"node-a\"".to_owned(),
        "rpc" => "add: rpc = \"192.0.2.1:7411\" (this host's address, reached by its peers)".to_owned(),
        "paths" => "add: paths = [\"192.0.2.1:7412\"] (one address per network)".to_owned(),
        _ => "see docs/node.toml.md".to_owned(),
    }
}

fn quoted(message: &str) -> Option<&str> {
    message.split('`').nth(1)
}

pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let offset = offset.min(text.len());
    text.as_bytes()[..offset].iter().filter(|b| **b == b'\n').count() + 1
}

fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Dotted path of the innermost key of which the key itself or the value covers the span.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> String {
    let covers = |r: Range<usize>| r.start <= span.start && span.end <= r.end;
    for (key, value) in table {
        let inner = match value.get_ref() {
            DeValue::Table(t) => key_at(t, span),
            _ => String::new(),
        };
        if !inner.is_empty() {
            return dotted(key.get_ref(), &inner);
        }
        if covers(key.span()) || covers(value.span()) {
            return key.get_ref().to_string();
        }
    }
    String::new()
}

/// Dotted path of the table that a span names exactly; empty for the document.
fn section_at(table: &DeTable<'_>, span: Range<usize>) -> String {
    for (key, value) in table {
        if let DeValue::Table(inner) = value.get_ref() {
            if value.span() == span {
                return key.get_ref().to_string();
            }
            let deeper = section_at(inner, span.clone());
            if !deeper.is_empty() {
                return dotted(key.get_ref(), &deeper);
            }
        }
    }
    String::new()
}

/// Where a key stands.
fn find(table: &DeTable<'_>, path: &[String]) -> Option<Range<usize>> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.iter().find(|(k, _)| k.get_ref() == first)?;
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => find(inner, rest).or(Some(key.span())),
        _ => Some(key.span()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "name = \"node-a\"\nrpc = \"192.0.2.1:7411\"\npaths = [\"192.0.2.1:7412\"]\n";

    fn etcd(endpoints: &str) -> String {
        format!("{GOOD}[store]\nkind = \"etcd\"\nendpoints = [{endpoints}]\n")
    }

    #[test]
    fn etcd_as_the_store() {
        let text = etcd("\"https://etcd1.example:2379\", \"https://[2001:db8::1]:2379\"")
            + "prefix = \"/a/b\"\nuser-file = \"/u\"\nca = \"/ca\"\ncert = \"/c\"\nkey = \"/k\"\n";
        let store = parse(Path::new("node.toml"), &text).unwrap().store;
        assert_eq!((store.kind, store.prefix()), (crate::config::StoreKind::Etcd, "/a/b"));
        assert_eq!(parse(Path::new("node.toml"), GOOD).unwrap().store, crate::config::StoreConfig::default());
    }

    #[test]
    fn ec2_by_a_private_endpoint() {
        let text = format!(
            "{GOOD}[ec2]\nendpoint = \"https://vpce-1.ec2.eu-central-1.vpce.amazonaws.com\"\n\
             metadata-endpoint = \"http://[fd00:ec2::254]\"\nprofile = \"vipd\"\n"
        );
        let ec2 = parse(Path::new("node.toml"), &text).unwrap().ec2;
        assert_eq!(ec2.profile.as_deref(), Some("vipd"));
        assert_eq!(ec2.metadata_endpoint.as_deref(), Some("http://[fd00:ec2::254]"));
        for good in ["http://127.0.0.1:5000", "http://127.0.0.1:5000/", "https://ec2.example"] {
            parse(Path::new("node.toml"), &format!("{GOOD}[ec2]\nendpoint = \"{good}\"\n")).unwrap();
        }
        for bad in [
            "",
            "ec2.example",
            "ftp://h",
            "http://",
            "http://u:p@h",
            "http://h/path",
            "http://h:0",
            "http://h:x",
        ] {
            let found = faults(&format!("{GOOD}[ec2]\nendpoint = \"{bad}\"\n"));
            assert!(found[0].starts_with("node.toml:5: ec2.endpoint: "), "{bad}: {found:?}");
        }
    }

    fn faults(text: &str) -> Vec<String> {
        let faults = parse(Path::new("node.toml"), text).expect_err("wrong");
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_least_file_is_good() {
        let config = parse(Path::new("node.toml"), GOOD).unwrap();
        assert_eq!(config.name, "node-a");
        assert!(!config.witness && config.control_group.is_none());
    }

    #[test]
    fn a_full_file_is_good() {
        let full = format!(
            "{GOOD}profile = \"fast\"\nwitness = true\ntunables = \"/etc/default/vipd\"\n\
             control-group = \"vipd\"\n[datapath]\nmode = \"generic\"\npin-dir = \"/sys/fs/bpf/v\"\n\
             max-vips = 100\nlog-packets = true\n[interface.eth0]\nbroadcast-ping = false\n\
             broadcast-ping-rate = 5\n"
        );
        let config = parse(Path::new("node.toml"), &full).unwrap();
        assert!(
            config.witness && config.datapath.max_vips == 100 && !config.interface["eth0"].broadcast_ping
        );
    }

    #[test]
    fn the_example_shipped_is_good() {
        let example = include_str!("../../../deploy/node.toml");
        parse(Path::new("node.toml"), example).unwrap();
        // What is commented out is right as well, and is what holds without it.
        let setting = |l: &&str| l.starts_with("# [") || l.contains(" = ");
        let full: String = example
            .lines()
            .filter(setting)
            .filter(|l| !l.starts_with("# paths"))
            .map(|l| format!("{}\n", l.trim_start_matches("# ")))
            .collect();
        let config = parse(Path::new("node.toml"), &full).unwrap();
        let least = parse(Path::new("node.toml"), example).unwrap();
        assert_eq!(config.control_group.as_deref(), Some("vipd"));
        assert!(config.ec2.endpoint.is_some() && config.ec2.profile.is_some());
        assert_eq!(config.interface["eth0"], crate::config::InterfaceConfig::default());
        let expected = NodeConfig {
            control_group: config.control_group.clone(),
            interface: config.interface.clone(),
            ec2: config.ec2.clone(),
            ..least
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn each_fault_names_line_key_reason_and_remedy() {
        let cases = [
            ("rpc = \"192.0.2.1:7411\"\npaths = []\n", "node.toml: name: is missing; add: name ="),
            (&GOOD.replace("rpc", "rcp"), "node.toml:2: rcp: unknown field `rcp`"),
            (
                &GOOD.replace("1:7411", "1"),
                "node.toml:2: rpc: invalid socket address syntax; write ADDRESS:PORT",
            ),
            (&GOOD.replace("\"node-a\"", "\"node a\""), "node.toml:1: name: 'node a' is not a valid name"),
            (&GOOD.replace("2.1:7411", "2.1:0"), "node.toml:2: rpc: port 0"),
            (&GOOD.replace("192.0.2.1:7411", "0.0.0.0:7411"), "node.toml:2: rpc: 0.0.0.0 is no address"),
            (&GOOD.replace("[\"192.0.2.1:7412\"]", "[]"), "node.toml:3: paths: is empty"),
            (
                &GOOD.replace(":7412\"]", ":7412\", \"192.0.2.1:7412\"]"),
                "node.toml:3: paths: 192.0.2.1:7412 is there twice",
            ),
            (&format!("{GOOD}[datapath]\nmax-vips = 0\n"), "node.toml:5: datapath.max-vips: 0"),
            (&format!("{GOOD}[datapath]\nmode = \"turbo\"\n"), "node.toml:5: datapath.mode: unknown variant"),
            (&format!("{GOOD}[interface.\"no/such\"]\n"), "node.toml:4: interface.no/such: 'no/such'"),
            (&format!("{GOOD}x = [\n"), "node.toml:4"),
            (&format!("{GOOD}[store]\nkind = \"redis\"\n"), "node.toml:5: store.kind: unknown variant"),
            (&format!("{GOOD}[store]\nkind = \"etcd\"\n"), "node.toml:4: store.endpoints: is empty; write"),
            (&format!("{GOOD}[ec2]\nregion = \"x\"\n"), "node.toml:5: ec2.region: unknown field `region`"),
            (
                &format!("{GOOD}[ec2]\nprofile = \"\"\n"),
                "node.toml:5: ec2.profile: '' is no name of a profile",
            ),
            (
                &format!("{GOOD}[ec2]\nmetadata-endpoint = \"h\"\n"),
                "node.toml:5: ec2.metadata-endpoint: 'h' is no URL of a host; write for example",
            ),
            (&format!("{GOOD}[store]\nprefix = \"/v\"\n"), "node.toml:5: store.prefix: is for etcd, and"),
            (&format!("{GOOD}[store]\nfoo = 1\n"), "node.toml:5: store.foo: unknown field"),
            (&etcd("\"10.0.0.1:2379\""), "node.toml:6: store.endpoints: '10.0.0.1:2379' is no http"),
            (
                &etcd("\"http://a:1\", \"http://a:1\""),
                "node.toml:6: store.endpoints: http://a:1 is there twice",
            ),
            (&etcd("\"http://a:1\", \"https://b:1\""), "node.toml:6: store.endpoints: some have TLS"),
            (&(etcd("\"http://a:1\"") + "ca = \"/f\"\n"), "node.toml:7: store.ca: is for TLS"),
            (&etcd("\"https://a:1\""), "node.toml:4: store.ca: is missing, and"),
            (&(etcd("\"https://a:1\"") + "cert = \"/f\"\n"), "node.toml:7: store.cert: has no key"),
            (
                &(etcd("\"https://a:1\"") + "prefix = \"v/\"\n"),
                "node.toml:7: store.prefix: 'v/' is no prefix",
            ),
        ];
        for (text, expected) in cases {
            let found = faults(text);
            assert!(found[0].starts_with(expected), "{found:?}\nwanted: {expected}");
        }
    }

    #[test]
    fn all_faults_at_once() {
        let text = "name = \"\"\nrpc = \"0.0.0.0:1\"\npaths = []\n";
        assert_eq!(faults(text).len(), 3);
    }

    #[test]
    fn an_absent_file_is_named() {
        let e = load(Path::new("/nonexistent/node.toml")).expect_err("absent").to_string();
        assert!(e.contains("/nonexistent/node.toml") && e.contains("--config"), "{e}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_config_or_faults(text in "(?s)((name|rpc|paths|\\[datapath\\]|mode)( = )?[\"\\[a-z0-9.:\\]]{0,20}\n?){0,6}|.{0,80}") {
            if let Err(faults) = parse(Path::new("f"), &text) {
                prop_assert!(!faults.is_empty());
                prop_assert!(faults.iter().all(|f| !f.reason.is_empty()));
            }
        }
    }
}
