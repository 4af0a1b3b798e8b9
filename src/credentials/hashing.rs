//! Does a password fit its hash? With memory that is used again.
//!
//! Argon2 wants 19 MiB for each check. Asked of the allocator anew each time, on whichever thread comes up, a flood of wrong
//! logins left some hundred MiB behind: freed blocks in the arenas of many threads, with something small in each. Checks in
//! progress are as many as cores at most, so that as many blocks are enough, for ever.

use argon2::password_hash::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Blocks that no check uses now.
#[derive(Default)]
pub(super) struct Memory(Mutex<Vec<Vec<Block>>>);

impl fmt::Debug for Memory {
    /// What is in it comes of passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    /// Whether `password` is the one that was hashed; slow by design.
    pub(super) fn verify(&self, password: &[u8], hash: &str) -> bool {
        match self.argon2(password, hash) {
            Some(right) => right,
            // PBKDF2 needs no memory, scrypt seldom comes.
            None => password_auth::verify_password(password, hash).is_ok(),
        }
    }

    /// Nothing where it is a hash of another kind, or one that is out of bounds.
    fn argon2(&self, password: &[u8], hash: &str) -> Option<bool> {
        let hash = PasswordHash::new(hash).ok()?;
        let algorithm = Algorithm::try_from(hash.algorithm).ok()?;
        let version = match hash.version {
            Some(version) => Version::try_from(version).ok()?,
            None => Version::default(),
        };
        let params = Params::try_from(&hash).ok()?;
        let expected = hash.hash?;
        let mut salt = [0; 64];
        let salt = hash.salt?.decode_b64(&mut salt).ok()?;
        let mut computed = [0; Output::MAX_LENGTH];
        let computed = computed.get_mut(..expected.len())?;
        let count = params.block_count();
        let argon2 = Argon2::new(algorithm, version, params);
        let mut blocks = self.take();
        if blocks.len() < count {
            blocks.resize(count, Block::default());
        }
        let done = argon2.hash_password_into_with_memory(
            password,
            salt,
            computed,
            blocks.get_mut(..count)?,
        );
        self.give_back(blocks);
        done.ok()?;
        // In constant time: this is how `Output` compares.
        Some(Output::new(computed).ok()? == expected)
    }

    fn take(&self) -> Vec<Block> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_default()
    }

    fn give_back(&self, blocks: Vec<Block>) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_hash_is_judged_as_by_the_library() {
        let hashes = [
            password_auth::generate_hash("right"),
            // The other kinds of Argon2, and PBKDF2.
            made(Algorithm::Argon2i, 64),
            made(Algorithm::Argon2d, 32),
            made(Algorithm::Argon2id, 4096),
            "$pbkdf2-sha256$i=1000,l=32$c29tZXNhbHRzb21lc2FsdA$AFTbISlEmMULvIWsdsvKvTLkmN/aUb7LwkMmUs7SDXk".to_owned(),
        ];
        let memory = Memory::default();
        for hash in &hashes {
            for password in ["right", "wrong", ""] {
                let expected = password_auth::verify_password(password, hash).is_ok();
                assert_eq!(memory.verify(password.as_bytes(), hash), expected, "{hash}");
                assert!(!expected || password == "right");
            }
        }
        // The blocks grew to the largest and were used by all.
        let free = memory.0.lock().unwrap();
        assert_eq!(free.len(), 1);
        assert_eq!(free[0].len(), 19 * 1024);
        assert_eq!(format!("{memory:?}"), "Memory");
    }

    fn made(algorithm: Algorithm, memory: u32) -> String {
        use argon2::password_hash::{PasswordHasher as _, SaltString};
        let params = Params::new(memory, 1, 1, None).unwrap();
        let salt = SaltString::from_b64("c29tZXNhbHRzb21lc2FsdA").unwrap();
        let argon2 = Argon2::new(algorithm, Version::V0x13, params);
        argon2.hash_password(b"right", &salt).unwrap().to_string()
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        let memory = Memory::default();
        for hash in [
            "",
            "right",
            "$argon2id$",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=99$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$X5t2N1YQFq0Yq0F1tq1bJtPZkU8qHnH6cF2zq9G8l3Y",
        ] {
            assert!(!memory.verify(b"right", hash), "{hash}");
        }
    }
}
