//! `gatepost hash-password`: reads a password from standard input, prints its PHC string.

use std::io::Read as _;
use std::process::ExitCode;

/// Longest password, octets.
const MAX_PASSWORD: u64 = 4096;

/// One final newline is not part of the password; an empty one is refused.
#[must_use]
pub fn run() -> ExitCode {
    let mut input = Vec::new();
    if let Err(error) = std::io::stdin()
        .take(MAX_PASSWORD + 1)
        .read_to_end(&mut input)
    {
        eprintln!("gatepost: standard input: {error}");
        return ExitCode::from(2);
    }
    let password = password(&input);
    if password.is_empty() || input.len() as u64 > MAX_PASSWORD {
        eprintln!("gatepost: the password is empty or longer than {MAX_PASSWORD} octets");
        return ExitCode::from(2);
    }
    let hash = password_auth::generate_hash(password);
    super::print(format!("{hash}\n").as_bytes(), ExitCode::SUCCESS)
}

fn password(input: &[u8]) -> &[u8] {
    match input.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => input,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_final_newline_is_not_part_of_the_password() {
        assert_eq!(password(b"secret\n"), b"secret");
        assert_eq!(password(b"secret\r\n"), b"secret");
        assert_eq!(password(b"secret\n\n"), b"secret\n");
        assert_eq!(password(b"secret\r"), b"secret\r", "no newline");
        assert_eq!(password(b" secret "), b" secret ");
        let hash = password_auth::generate_hash(password(b"secret\n"));
        assert!(password_auth::verify_password(b"secret", &hash).is_ok());
    }
}
