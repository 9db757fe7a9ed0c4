// SPDX-License-Identifier: GPL-2.0-or-later

//! How a test says that something is not as it should be.

use std::fmt;

/// Why a test failed.
#[derive(Debug)]
pub struct Failure(String);

/// What a test returns.
pub type Check<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this explanation.
    pub fn new(text: impl Into<String>) -> Self {
        Failure(text.into())
    }

    /// The same failure as a boxed error.
    pub fn of(error: Box<dyn std::error::Error>) -> Self {
        Failure(error.to_string())
    }
}

impl From<Failure> for Box<dyn std::error::Error> {
    fn from(failure: Failure) -> Self {
        failure.0.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any error, with the place in the test where `?` met it.
impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Failure(format!("{}: {error}", std::panic::Location::caller()))
    }
}

/// Fails the test, with an explanation, unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::check::Failure::new(format!("{}:{}: {}", file!(), line!(), format!($($text)+))).into());
        }
    };
}

/// Fails the test unless both are equal.
macro_rules! same {
    ($found:expr, $wanted:expr) => {
        match (&$found, &$wanted) {
            (found, wanted) => {
                $crate::check::ensure!(*found == *wanted, "{} is {found:?}, should be {wanted:?}", stringify!($found))
            }
        }
    };
}

pub(crate) use {ensure, same};
