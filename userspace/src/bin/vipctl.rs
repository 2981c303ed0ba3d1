//! The command line of vipd.

use std::process::ExitCode;

fn main() -> ExitCode {
    vipd::cli::main()
}
