//! What EC2 answers.

use super::fake::Answer;

/// 200 with the operation's element around `inner`.
pub fn done(operation: &str, inner: &str) -> Answer {
    Answer::Reply(200, whole(operation, inner))
}

pub fn whole(operation: &str, inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <{operation}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>{inner}</{operation}Response>\n"
    )
}

pub fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::Reply(
        status,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
             <Message>{message}</Message></Error></Errors><RequestID>ea966190-f9aa-478e-9ede-EXAMPLE</RequestID></Response>"
        ),
    )
}

pub fn throttled() -> Answer {
    error(503, "RequestLimitExceeded", "Request limit exceeded.")
}

pub fn replaced() -> Answer {
    done("ReplaceRoute", "<return>true</return>")
}

/// A page of route tables without routes.
pub fn tables(ids: &[&str], next: Option<&str>) -> Answer {
    let items: String =
        ids.iter().map(|id| format!("<item><routeTableId>{id}</routeTableId><routeSet/></item>")).collect();
    let next = next.map(|next| format!("<nextToken>{next}</nextToken>")).unwrap_or_default();
    done("DescribeRouteTables", &format!("<routeTableSet>{items}</routeTableSet>{next}"))
}
