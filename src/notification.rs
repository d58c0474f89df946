//! Notifications: typed values posted to a handler.

use std::any::Any;
use std::fmt;

/// A typed value posted to a handler with [`Net::notify`](crate::Net::notify) or
/// [`Remote::notify`](crate::Remote::notify). It arrives in `on_notify`.
///
/// ```
/// # use tidegate::Notification;
/// struct Kick(&'static str);
///
/// let notification = Notification::new(Kick("too loud"));
/// match notification.take::<Kick>() {
///     Ok(Kick(why)) => assert_eq!(why, "too loud"),
///     Err(other) => println!("not a kick: {other:?}"),
/// }
/// ```
pub struct Notification(Box<dyn Any>);

impl Notification {
    /// Wraps a value of any type.
    pub fn new<T: 'static>(value: T) -> Self {
        Notification(Box::new(value))
    }

    pub(crate) fn from_box(value: Box<dyn Any>) -> Self {
        Notification(value)
    }

    /// Whether the value is a `T`.
    pub fn is<T: 'static>(&self) -> bool {
        self.0.is::<T>()
    }

    /// Returns the value if it is a `T`.
    ///
    /// # Errors
    /// The value is of another type; the notification is returned unchanged.
    pub fn take<T: 'static>(self) -> Result<T, Notification> {
        self.0.downcast().map(|value| *value).map_err(Notification)
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notification(..)")
    }
}
