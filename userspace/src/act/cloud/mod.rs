//! Effects on Amazon EC2.

mod perform;

pub use self::perform::Cloud;
