//! Answers that the proxy gives by itself, worded as EC2 words them, and what it changes in the server's.

use anyhow::{Context, Result};

use super::{
    http::Response,
    xml::{Element, escape},
};

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const REQUEST_ID: &str = "59dbff89-35bd-4eac-99ed-be587EXAMPLE";
/// Actions whose lists EC2 gives in pages.
const PAGED: [&str; 2] = ["DescribeRouteTables", "DescribeNetworkInterfaces"];

fn xml(status: u16, body: &str) -> Response {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
    Response::new(status, "text/xml;charset=UTF-8", body)
}

pub(super) fn error(status: u16, code: &str, message: &str) -> Response {
    xml(
        status,
        &format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>{}</Message></Error></Errors>\
             <RequestID>{REQUEST_ID}</RequestID></Response>",
            escape(message)
        ),
    )
}

pub(super) fn throttled() -> Response {
    error(503, "RequestLimitExceeded", "Request limit exceeded.")
}

pub(super) fn internal_error() -> Response {
    error(500, "InternalError", "An internal error has occurred")
}

pub(super) fn unavailable() -> Response {
    error(503, "Unavailable", "The service is unavailable. Please try again shortly.")
}

pub(super) fn denied(action: &str) -> Response {
    let message = format!(
        "You are not authorized to perform this operation. User is not authorized to perform: ec2:{action} \
         because no identity-based policy allows the ec2:{action} action."
    );
    error(403, "UnauthorizedOperation", &message)
}

pub(super) fn would_succeed() -> Response {
    error(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
}

/// What a write says that went well.
pub(super) fn success(action: &str) -> Response {
    let association = "<associationId>eipassoc-0123456789abcdef0</associationId>";
    let more = if action == "AssociateAddress" { association } else { "" };
    xml(
        200,
        &format!(
            "<{action}Response xmlns=\"{NAMESPACE}\"><requestId>{REQUEST_ID}</requestId>\
             <return>true</return>{more}</{action}Response>"
        ),
    )
}

/// 200 from something that is not EC2.
pub(super) fn garbage() -> Response {
    Response::new(200, "text/html", "<html><body><h1>It works!</h1><p>&nbsp;</body>")
}

/// Where moto says AccessDenied, EC2 has its own code.
pub(super) fn as_ec2_denies(action: &str, answer: Response) -> Response {
    let says_so = answer.status == 403 && answer.text().contains("<Code>AccessDenied</Code>");
    if says_so { denied(action) } else { answer }
}

/// One page of an answer, as EC2 makes it of long ones; moto always gives all.
///
/// # Errors
/// When the server's answer is not a list.
pub(super) fn page(action: &str, size: usize, token: Option<&str>, whole: Response) -> Result<Response> {
    if !PAGED.contains(&action) || whole.status != 200 {
        return Ok(whole);
    }
    let first = match token.map(|token| token.strip_prefix("from-").and_then(|n| n.parse::<usize>().ok())) {
        None => 0,
        Some(Some(first)) => first,
        Some(None) => return Ok(error(400, "InvalidNextToken", "The token is invalid.")),
    };
    let mut root = Element::parse(&whole.text())?;
    let list = root.children.iter_mut().find(|child| child.name.ends_with("Set")).context("no list")?;
    let total = list.children.len();
    list.children = std::mem::take(&mut list.children).into_iter().skip(first).take(size).collect();
    if first + size < total {
        root.children.push(Element::new("nextToken", &format!("from-{}", first + size)));
    }
    Ok(xml(200, &root.to_xml()))
}
