//! The appliance's program; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    relayd::main()
}
