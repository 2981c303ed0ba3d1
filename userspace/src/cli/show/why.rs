//! Why a hierarchy is where it is, and why not elsewhere.

use crate::{
    api::{Explanation, NodeVerdict, Shown},
    cli::table::Table,
    model::Score,
};

/// Empty where nothing is known.
pub(super) fn text(shown: &Shown) -> String {
    let Some(explanation) = &shown.explanation else { return String::new() };
    let members: Vec<&str> = explanation.members.iter().map(|t| t.as_str()).collect();
    let hierarchy = match &members[..] {
        [_] => String::new(),
        many => format!("hierarchy {}, bottom up: {}\n", explanation.root, many.join(" ")),
    };
    let constraints: String =
        shown.constraints.iter().map(|c| format!("constraint {}: {}\n", c.id, c.says)).collect();
    format!("{hierarchy}why: {}\n{constraints}{}\n", explanation.summary, nodes(explanation))
}

fn nodes(explanation: &Explanation) -> String {
    let reach = explanation.nodes.iter().any(|n| n.reached.is_some());
    let mut table = if reach {
        Table::new(["NODE", "PRIORITY", "SCORE", "REACHES", "COULD IT BE THERE?"]).right([1, 2, 3])
    } else {
        Table::new(["NODE", "PRIORITY", "SCORE", "COULD IT BE THERE?"]).right([1, 2])
    };
    for n in &explanation.nodes {
        let (node, priority, score) = (n.node.clone(), n.priority.to_string(), score(n));
        match n.reached {
            Some(reached) => table.row([node, priority, score, reached.to_string(), verdict(n)]),
            None if reach => table.row([node, priority, score, String::new(), verdict(n)]),
            None => table.row([node, priority, score, verdict(n)]),
        }
    }
    table.render()
}

fn verdict(n: &NodeVerdict) -> String {
    match (&n.obstacles[..], n.here) {
        ([], true) => "it is".to_owned(),
        ([], false) => "yes".to_owned(),
        (obstacles, true) => format!("it is, although: {}", obstacles.join("; ")),
        (obstacles, false) => format!("no: {}", obstacles.join("; ")),
    }
}

/// The sum, and what it is made of where that is more than one thing.
fn score(n: &NodeVerdict) -> String {
    let parts: Vec<String> = n.parts.iter().map(|(from, score)| format!("{from} {score}")).collect();
    match &parts[..] {
        [] => Score::ZERO.to_string(),
        parts => format!("{} ({})", n.score, parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_reasons() {
        let verdict = |node: &str, here, obstacles: &[&str], parts: Vec<(String, Score)>| NodeVerdict {
            node: node.into(),
            priority: 10,
            here,
            obstacles: obstacles.iter().map(|o| (*o).into()).collect(),
            reached: None,
            score: parts.iter().map(|(_, s)| *s).sum(),
            parts,
        };
        let explanation = Explanation {
            root: "web".parse().unwrap(),
            members: vec!["ip".parse().unwrap(), "web".parse().unwrap()],
            owner: Some("a".into()),
            summary: "on a: it stays".into(),
            nodes: vec![
                verdict("a", true, &[], vec![("stickiness".into(), Score::new(5))]),
                verdict("b", false, &["on standby"], vec![]),
                verdict("c", false, &[], vec![]),
            ],
        };
        let expected = "\
NODE  PRIORITY           SCORE  COULD IT BE THERE?
a           10  5 (stickiness 5)  it is
b           10               0  no: on standby
c           10               0  yes
";
        let plain = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(plain(&nodes(&explanation)), plain(expected));
    }
}
