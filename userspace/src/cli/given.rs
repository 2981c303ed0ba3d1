//! Addresses of a command line: `@FILE` is read here, where the caller may read it.

use std::{fs, io::Read};

use crate::api::{ApiError, Given, LONGEST_LINE};

pub fn read(arguments: &[String]) -> Result<Vec<Given>, ApiError> {
    let mut all = Vec::new();
    let mut bytes = 0;
    for argument in arguments {
        all.push(match argument.strip_prefix('@') {
            None => Given::Argument(argument.clone()),
            Some(path) => {
                let remedy = "give @FILE with one address a line, or @- for stdin";
                let (name, text) = contents(path, remedy)?;
                bytes += text.len();
                Given::File { name, text }
            }
        });
    }
    // In the request a line's end takes two bytes.
    if bytes > LONGEST_LINE / 2 {
        return Err(ApiError::usage(format!(
            "the files have {bytes} bytes, and {} are the limit: give ranges instead of single addresses, or several \
             orders with --group",
            LONGEST_LINE / 2
        )));
    }
    Ok(all)
}

/// A file that goes to the daemon as a whole; `-` is stdin.
pub fn file(path: &str) -> Result<(String, String), ApiError> {
    let (name, text) = contents(path, "name a file as 'vipctl export' prints it, or - for stdin")?;
    if text.len() > LONGEST_LINE / 2 {
        return Err(ApiError::usage(format!(
            "{name} has {} bytes, and {} are the limit: write ranges instead of single addresses, or split it",
            text.len(),
            LONGEST_LINE / 2
        )));
    }
    Ok((name, text))
}

fn contents(path: &str, remedy: &str) -> Result<(String, String), ApiError> {
    let stdin = path == "-";
    let name = if stdin { "stdin".to_owned() } else { path.to_owned() };
    let bytes = if stdin {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    let bytes = bytes.map_err(|e| ApiError::usage(format!("cannot read {name}: {e}; {remedy}")))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..good].iter().filter(|b| **b == b'\n').count() + 1;
        ApiError::usage(format!("{name}:{line}: this is no UTF-8 text; {remedy}"))
    })?;
    Ok((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_mistakes_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let argument = vec![format!("@{}", path.display()), "10.0.0.9".to_owned()];
        assert!(read(&argument).unwrap_err().message.contains("cannot read"));
        fs::write(&path, "10.0.0.1\n# more\n").unwrap();
        let [Given::File { name, text }, Given::Argument(one)] = &read(&argument).unwrap()[..] else {
            panic!()
        };
        assert_eq!((name.as_str(), text.as_str()), (path.to_str().unwrap(), "10.0.0.1\n# more\n"));
        assert_eq!(one, "10.0.0.9");
        fs::write(&path, b"10.0.0.1\n\xff\n").unwrap();
        assert!(read(&argument).unwrap_err().message.contains("list:2: this is no UTF-8"));
        fs::write(&path, vec![b'\n'; LONGEST_LINE / 2 + 1]).unwrap();
        assert!(read(&argument).unwrap_err().message.contains("the limit"));
    }
}
