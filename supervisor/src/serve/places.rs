//! Keeps an eye on the files the supervisor lives by, with the nursery's eyes and hands.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use crate::{
    events::troubles::{About, Troubles},
    front::Listener,
    nursery::{Nursery, NurseryError, Places},
};

/// How often the nursery is asked to look. A path that is gone is back after that.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The nursery answers within milliseconds, and within tens of them while it makes sandboxes.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Looks until the nursery is gone. Listeners that were made anew go to `renewed`, by the number of their place.
pub async fn watch(nursery: Nursery, troubles: Arc<Troubles>, renewed: Vec<mpsc::UnboundedSender<Listener>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut look = std::pin::pin!(nursery.look());
        let looked = match timeout(ANSWER_PATIENCE, &mut look).await {
            Ok(looked) => looked,
            Err(_) => {
                let what = "the nursery does not answer: no worker can be made until it does; is it stopped (`ps -C \
                            sublet-nursery` shows a T then), or does it wait for a disk?";
                troubles.set(About::Nursery, vec![what.to_owned()]);
                look.await
            }
        };
        troubles.set(About::Nursery, Vec::new());
        match looked {
            Ok(Places { wrong, healed, sockets }) => {
                for what in healed {
                    tracing::warn!("{what}");
                }
                for (number, socket) in sockets {
                    if let Some(renewed) = renewed.get(number) {
                        // A front that is gone listens to nobody any more.
                        renewed.send(socket.into()).ok();
                    }
                }
                troubles.set(About::Places, wrong);
            }
            // Told by whoever waits for its end.
            Err(NurseryError::Gone) => return,
            Err(error) => {
                drop(troubles.set(About::Places, vec![format!("the state directory cannot be looked at: {error}")]))
            }
        }
    }
}
