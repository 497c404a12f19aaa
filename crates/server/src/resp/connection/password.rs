//! Compares passwords in a time that tells nothing about them.

use std::fmt;

use subtle::ConstantTimeEq as _;

/// The longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 512;

/// The password of the one user.
#[derive(Clone)]
pub struct Password {
    padded: [u8; PASSWORD_BYTES_MAX],
    length: u64,
}

/// A password that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a password of {length} bytes is not possible: choose 1 to {PASSWORD_BYTES_MAX} bytes")]
pub struct PasswordError {
    length: usize,
}

impl Password {
    /// Takes a password.
    ///
    /// # Errors
    /// [`PasswordError`] when it is empty or too long.
    pub fn new(password: &[u8]) -> Result<Self, PasswordError> {
        if password.is_empty() || PASSWORD_BYTES_MAX < password.len() {
            return Err(PasswordError { length: password.len() });
        }
        Ok(Self::padded(password))
    }

    /// Whether a client has given this password. Takes the same time whatever was given.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        let given = Self::padded(given);
        (self.padded.ct_eq(&given.padded) & self.length.ct_eq(&given.length)).into()
    }

    fn padded(password: &[u8]) -> Self {
        let mut padded = [0; PASSWORD_BYTES_MAX];
        let kept = password.len().min(PASSWORD_BYTES_MAX);
        padded[..kept].copy_from_slice(&password[..kept]);
        Self { padded, length: u64::try_from(password.len()).unwrap_or(u64::MAX) }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_is_the_password() {
        let password = Password::new(b"secret").unwrap();
        assert!(password.is(b"secret"));
        let too_long = [b"secret".as_slice(), &[0; 600]].concat();
        for wrong in [b"".as_slice(), b"secre", b"secret\0", b"Secret", &too_long] {
            assert!(!password.is(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{password:?}"), "Password");
        assert!(Password::new(b"").is_err());
        assert!(Password::new(&[b'x'; 513]).is_err());
    }
}
