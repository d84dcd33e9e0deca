//! Takes one job from step to step until it has ended.
//!
//! The order of things is the point of this file and of those that it calls: [`creating`](super::creating),
//! [`watching`](super::watching), [`results`](super::results), [`handing_over`](super::handing_over). A step is
//! in the journal before it has an effect, and its effect is there before the next step begins. So a process that is
//! killed between two lines leaves a journal from which [`Action::next`] finds the way.

use super::{action::Action, course::Course, handle::Order, record::Record};
use crate::Result;

impl Course {
    /// Works until the job has ended, and serves its callers until the last one has gone.
    pub(super) async fn run(mut self) {
        self.context.note_enqueued(&self.state.plan.id, self.state.enqueued_tokens());
        if self.state.paused.is_some() {
            // The caller who opened the job wants it to go on.
            if let Err(error) = self.record(Record::Resumed) {
                self.pause(error);
                if !self.rest().await {
                    return;
                }
            }
        }
        while self.state.done.is_none() {
            self.publish(None);
            if let Err(error) = self.advance().await {
                self.pause(error);
                if !self.rest().await {
                    return;
                }
            }
        }
        self.context.note_enqueued(&self.state.plan.id, 0);
        // Others may read the job from now on, and tell its charges.
        (self.journal, self.rows) = (None, None);
        self.publish(None);
        while self.rest().await {}
    }

    /// Serves callers while nothing is done. Returns whether to go on; if not, the last caller has gone.
    async fn rest(&mut self) -> bool {
        while let Some(order) = self.orders.recv().await {
            let goes_on = matches!(order, Order::Cancel(_) | Order::Resume(_));
            if self.obey(order) && goes_on {
                return true;
            }
        }
        false
    }

    /// Does the next step.
    async fn advance(&mut self) -> Result<()> {
        self.obey_all();
        // A job that turned to a standby may go on without one.
        self.state.handing_over &= self.context.standby.is_some();
        self.hand_over_in_time()?;
        match Action::next(&self.state, self.context.room()) {
            Action::Ingest(shard) => self.ingest(shard).await,
            Action::LookFor(shard) => self.look_for(shard).await,
            Action::Divide(shard) => self.divide(shard),
            Action::NeverFits(shard) => Err(self.never_fits(shard)),
            Action::Delete => self.delete_file().await,
            Action::Upload(shard) => self.upload(shard).await,
            Action::Create(shard) => self.create(shard).await,
            Action::HandOver(shard) => self.hand_over(shard).await,
            Action::GiveUp(shard) => self.give_up(shard),
            Action::Poll => self.poll().await,
            Action::WaitForRoom => {
                self.wait(self.pace.shortest()).await;
                Ok(())
            }
            Action::Finish => {
                self.context.step("finish");
                self.record(Record::Done { cancelled: self.state.cancelling })
            }
        }
    }

    /// Turns to the standby when the job is old enough.
    fn hand_over_in_time(&mut self) -> Result<()> {
        let Some(standby) = &self.context.standby else { return Ok(()) };
        let is_due = self.state.plan.created().elapsed().is_ok_and(|age| age >= standby.after);
        if is_due && self.state.sends_more() {
            self.record(Record::HandingOver)?;
        }
        Ok(())
    }
}
