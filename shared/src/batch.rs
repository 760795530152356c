//! Requests that share a transaction.

/// Requests that share a transaction, in the order in which they came.
///
/// Others may still wait for the next one. While a transaction waits for its locks more of them come, and those that
/// these locks cover need not wait: they join.
pub struct Batch<'w, Request> {
    members: Vec<Request>,
    waiting: Option<NextIf<'w, Request>>,
}

/// Hands out the request that has waited longest, if it fits.
type NextIf<'w, Request> = &'w mut (dyn FnMut(&dyn Fn(&Request) -> bool) -> Option<Request> + Send);

impl<'w, Request> Batch<'w, Request> {
    /// These, and nobody joins them.
    #[must_use]
    pub fn of(members: impl Into<Vec<Request>>) -> Self {
        Self {
            members: members.into(),
            waiting: None,
        }
    }

    /// These, and whom `next_if` hands out.
    pub fn joined_by(members: Vec<Request>, next_if: NextIf<'w, Request>) -> Self {
        Self {
            members,
            waiting: Some(next_if),
        }
    }

    /// All that were in it at last.
    #[must_use]
    pub fn into_members(self) -> Vec<Request> {
        self.members
    }

    /// All that are in it by now.
    #[must_use]
    pub fn members(&self) -> &[Request] {
        &self.members
    }

    /// Lets those who wait join, if they fit, in the order in which they came. They stay members when the transaction is run
    /// again.
    pub fn admit(&mut self, fits: impl Fn(&Request) -> bool) {
        let Some(next_if) = &mut self.waiting else {
            return;
        };
        while let Some(request) = next_if(&fits) {
            self.members.push(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_fit_join() {
        let mut queue = vec![6, 4, 3, 2].into_iter().peekable();
        let mut next_if = |fits: &dyn Fn(&i32) -> bool| queue.next_if(fits);
        let mut batch = Batch::joined_by(vec![8], &mut next_if);
        batch.admit(|number| number % 2 == 0);
        assert_eq!(batch.members(), [8, 6, 4]);
        batch.admit(|number| *number == 3);
        assert_eq!(batch.members(), [8, 6, 4, 3]);
    }
}
