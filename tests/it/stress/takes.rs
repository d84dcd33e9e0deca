//! Describes how long a call of a stand-in takes, and waits that long.

use std::{
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use fastrand::Rng;

/// The duration of something.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    NoTime,
    /// This many turns of other tasks.
    Turns(u32),
    This(Duration),
    /// Wakes its task, and keeps the thread busy for this time before it returns that it waits.
    Spins(Duration),
}

impl Takes {
    /// Waits this long, but not past the deadline.
    pub(super) async fn wait(self, deadline: Option<Instant>) -> Result<(), ()> {
        match deadline {
            None => self.wait_long().await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), self.wait_long()).await.map_err(|_| ())?,
        }
        Ok(())
    }

    /// Returns the time that passes in any case.
    pub(super) const fn at_least(self) -> Duration {
        match self {
            Self::This(long) => long,
            Self::NoTime | Self::Turns(_) | Self::Spins(_) => Duration::ZERO,
        }
    }

    async fn wait_long(self) {
        match self {
            Self::NoTime => {}
            Self::Turns(turns) => {
                for _ in 0..turns {
                    turn(Duration::ZERO).await;
                }
            }
            Self::This(long) => tokio::time::sleep(long).await,
            Self::Spins(long) => {
                for _ in 0..2 {
                    turn(long).await;
                }
            }
        }
    }
}

/// Gives its turn to other tasks. The wake-up comes before the end of the poll.
async fn turn(spin: Duration) {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        if !spin.is_zero() {
            std::thread::sleep(spin);
        }
        Poll::Pending
    })
    .await;
}

/// The waits that a provider asks for.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    pub(super) longest: Duration,
}

impl Waits {
    pub(super) fn draw(&self, random: &mut Rng) -> Duration {
        self.longest.mul_f64(random.f64())
    }
}
