//! grpc.health.v1: what a call would get, asked for once or watched.
//!
//! | service | serves while |
//! |---|---|
//! | empty, `sublet.v1.Invoker` | calls are taken: neither stopping nor draining, the nursery is there, a function serves |
//! | `TENANT/FUNCTION` | the same, and its workers start and answer; see [`crate::driver::standing`] |
//! | `sublet.v1.Admin`, on the operators' socket | it answers |
//!
//! A name of which there is nothing is NOT_FOUND to Check, and SERVICE_UNKNOWN to Watch, which goes on: a reload may bring it.

use std::sync::Arc;

use sublet_proto::v1::{admin_server::SERVICE_NAME as ADMIN_NAME, invoker_server::SERVICE_NAME as INVOKER_NAME};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use crate::driver::{Driver, standing::Standing};

/// The service on one of the two servers.
#[derive(Clone, Debug)]
pub struct HealthService {
    /// The driver, which knows what serves.
    pub driver: Arc<Driver>,
    /// Whether the Admin service is on the same server.
    pub has_admin: bool,
    /// Becomes true when connections are to end.
    pub closing: watch::Receiver<bool>,
}

fn wire(standing: Standing) -> ServingStatus {
    match standing {
        Standing::Serving => ServingStatus::Serving,
        Standing::NotServing(_) => ServingStatus::NotServing,
        Standing::Unknown => ServingStatus::ServiceUnknown,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

impl HealthService {
    fn status(&self, service: &str) -> ServingStatus {
        match service {
            ADMIN_NAME if self.has_admin => ServingStatus::Serving,
            INVOKER_NAME => wire(self.driver.standing("")),
            service => wire(self.driver.standing(service)),
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "there is no service {service:?}: ask for \"\", {INVOKER_NAME:?} or \"TENANT/FUNCTION\""
            ))),
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let (health, mut closing) = (self.clone(), self.closing.clone());
        // Before the first look, so that no change after it is missed.
        let mut news = self.driver.standing_news();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                news.mark_unchanged();
                let status = health.status(&service);
                if told.replace(status) != Some(status) && sender.send(Ok(response(status))).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                    // It must not hold the end up.
                    _ = closing.wait_for(|closing| *closing) => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
