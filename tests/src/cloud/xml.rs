//! As much of XML as EC2's answers have: elements, text and the five entities; attributes only at the root.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    /// As they were written, with the space before them.
    attributes: String,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), ..Self::default() }
    }

    /// # Errors
    /// When it is not one whole document.
    pub fn parse(document: &str) -> Result<Self> {
        let mut rest = document.trim();
        if let Some(declaration) = rest.strip_prefix("<?xml") {
            rest = declaration.split_once("?>").context("the declaration has no end")?.1.trim_start();
        }
        let (root, rest) = element(rest)?;
        ensure!(rest.trim().is_empty(), "something comes after the root: {rest}");
        Ok(root)
    }

    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    pub fn child_mut(&mut self, name: &str) -> Option<&mut Element> {
        self.children.iter_mut().find(|child| child.name == name)
    }

    /// The text at `a/b/c` below this element.
    ///
    /// # Errors
    /// Names what is not there.
    pub fn at(&self, path: &str) -> Result<&str> {
        let mut here = self;
        for name in path.split('/') {
            here = here.child(name).with_context(|| format!("no {path} in {}", self.to_xml()))?;
        }
        Ok(&here.text)
    }

    /// The elements of the list of this name, which EC2 calls `item` and IAM `member`.
    pub fn items(&self, list: &str) -> impl Iterator<Item = &Element> {
        self.child(list).into_iter().flat_map(|list| &list.children)
    }

    pub fn to_xml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let _ = write!(out, "<{}{}>{}", self.name, self.attributes, escape(&self.text));
        self.children.iter().for_each(|child| child.write(out));
        let _ = write!(out, "</{}>", self.name);
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&#39;", "'").replace("&amp;", "&")
}

fn element(text: &str) -> Result<(Element, &str)> {
    let inside = text.strip_prefix('<').with_context(|| format!("an element was expected: {text}"))?;
    let (head, mut rest) = inside.split_once('>').context("a tag has no end")?;
    let (head, empty) = head.strip_suffix('/').map_or((head, false), |head| (head, true));
    let name = head.split_whitespace().next().context("a tag has no name")?;
    let attributes = head[name.len()..].trim_end().to_owned();
    let mut this = Element { name: name.to_owned(), attributes, ..Element::default() };
    if empty {
        return Ok((this, rest));
    }
    loop {
        let (text, tag) = rest.split_at(rest.find('<').with_context(|| format!("{name} has no end"))?);
        this.text.push_str(&unescape(text));
        if let Some(end) = tag.strip_prefix("</") {
            let (end, rest) = end.split_once('>').context("an end tag has no end")?;
            if end != name {
                bail!("{name} is ended by {end}");
            }
            if !this.children.is_empty() {
                // What is between children is layout.
                this.text.clear();
            }
            return Ok((this, rest));
        }
        let (child, after) = element(tag)?;
        this.children.push(child);
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
        <Answer xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15\"><set><item><a>1 &lt; 2 &amp;lt;</a></item>\
        <item/></set><id>x</id></Answer>";

    #[test]
    fn reads_and_writes() {
        let root = Element::parse(DOCUMENT).unwrap();
        assert_eq!(root.at("id").unwrap(), "x");
        assert_eq!(root.items("set").count(), 2);
        assert_eq!(root.items("set").next().unwrap().at("a").unwrap(), "1 < 2 &lt;");
        assert!(root.at("set/nothing").is_err());
        assert_eq!(Element::parse(&root.to_xml()).unwrap(), root);
    }

    #[test]
    fn half_a_document_is_an_error() {
        for length in 0..DOCUMENT.len() {
            assert!(Element::parse(&DOCUMENT[..length]).is_err(), "{}", &DOCUMENT[..length]);
        }
    }
}
