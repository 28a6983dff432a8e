//! The front: gRPC on the sockets that `serve` has bound.
//!
//! Two servers: callers (Invoker, on the call socket and, when configured, TCP on loopback) and operators (Admin, on a
//! socket of their own). Health and reflection are on both. This module knows gRPC and the driver, and nothing of how
//! workers are made.

mod admin;
mod health;
mod incoming;
pub(crate) mod invoker;
#[cfg(test)]
mod reference;
pub mod status;
mod stream;

use std::{io, sync::Arc};

use sublet_proto::v1::{
    self, Fact,
    admin_server::{AdminServer, SERVICE_NAME as ADMIN_NAME},
    invoker_server::{InvokerServer, SERVICE_NAME as INVOKER_NAME},
};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::Server;
use tonic_health::pb::health_server::HealthServer;

pub use self::incoming::{Bound, Listener, Renewed};
use self::{admin::AdminService, health::HealthService, incoming::incoming, invoker::InvokerService};
use crate::{driver::Driver, pulse::Pulse, reload::Reloader};

/// HTTP/2 header list of one request. gRPC's own headers need a few hundred bytes; labels travel in the message.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;
/// Calls on one connection at a time; further ones wait in the client.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// What a request may add to its payload: names, label, field tags.
const REQUEST_OVERHEAD_BYTES: usize = 64 * 1024;
/// What a response may add: receipt and log tail.
const RESPONSE_OVERHEAD_BYTES: usize = 4 * 1024 * 1024;

/// What the front needs beside the driver.
#[derive(Debug)]
pub struct Front {
    /// The calls go here.
    pub driver: Arc<Driver>,
    /// Reads the configuration again.
    pub reloader: Arc<Reloader>,
    /// Connections of callers at a time.
    pub connections_max: u32,
    /// What was found out about the host.
    pub host: Vec<Fact>,
    /// What is not enforced and accepted.
    pub degraded: Vec<String>,
    /// How late the loop is.
    pub pulse: Arc<Pulse>,
    /// Becomes true when the process is to end; set by Admin too.
    pub stop: watch::Sender<bool>,
    /// Becomes true when callers are served no more, and every connection of theirs has ended.
    pub callers_gone: watch::Sender<bool>,
}

/// Why the front ended early.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// A socket could not be used.
    #[error("use the bound socket")]
    Socket(#[from] io::Error),
    /// tonic gave up.
    #[error("serve gRPC")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors are not what reflection takes.
    #[error("gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl Front {
    /// Serves until callers and operators are let go of, each by a word of its own. Then nobody more is let in, connections
    /// are told to come again (GOAWAY), and calls that are under way, or still come on them, are waited for.
    ///
    /// # Errors
    /// When a server cannot go on.
    pub async fn serve(
        self,
        bound: Bound,
        callers_closing: watch::Receiver<bool>,
        closing: watch::Receiver<bool>,
    ) -> Result<(), FrontError> {
        let health = |has_admin, closing: &watch::Receiver<bool>| {
            HealthServer::new(HealthService { driver: self.driver.clone(), has_admin, closing: closing.clone() })
        };
        let (callers_health, operators_health) = (health(false, &callers_closing), health(true, &closing));
        // Each server lists what it serves; v1alpha as well, which many clients still ask for.
        let reflection = |service: &str| {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(service)
                .with_service_name("grpc.health.v1.Health")
        };
        let largest = |of: fn(&crate::config::Function) -> u32| {
            self.driver.catalogue().all().iter().map(|entry| of(&entry.settings) as usize).max().unwrap_or(0)
        };
        // The largest any function takes, so that one byte too many for this function is told by us, with the setting.
        let request_max = largest(|f| f.payload_max_bytes) + REQUEST_OVERHEAD_BYTES;
        let response_max = largest(|f| f.answer_max_bytes) + RESPONSE_OVERHEAD_BYTES;
        let invoker = InvokerServer::new(InvokerService(self.driver.clone()))
            .max_decoding_message_size(request_max)
            .max_encoding_message_size(response_max);
        let admin = AdminServer::new(AdminService {
            driver: self.driver.clone(),
            reloader: self.reloader,
            host: self.host.into(),
            degraded: self.degraded.into(),
            pulse: self.pulse,
            stop: self.stop.clone(),
        });
        let server = || {
            Server::builder()
                .http2_max_header_list_size(HEADER_LIST_MAX_BYTES)
                .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
                .tcp_nodelay(true)
        };
        let Bound { call, admin: admin_socket, tcp } = bound;
        let tcp = tcp.map(TcpListener::from_std).transpose()?;
        let troubles = self.driver.services().troubles.clone();
        let callers = server()
            .add_service(callers_health)
            .add_service(reflection(INVOKER_NAME).build_v1()?)
            .add_service(reflection(INVOKER_NAME).build_v1alpha()?)
            .add_service(invoker)
            .serve_with_incoming_shutdown(
                incoming(call, tcp, self.connections_max, troubles.clone(), callers_closing)?,
                by_their_end(),
            );
        let callers_gone = self.callers_gone;
        let callers = async move {
            let ended = callers.await;
            callers_gone.send_replace(true);
            ended
        };
        let operators = server()
            .add_service(operators_health)
            .add_service(reflection(ADMIN_NAME).build_v1()?)
            .add_service(reflection(ADMIN_NAME).build_v1alpha()?)
            .add_service(admin)
            .serve_with_incoming_shutdown(
                incoming(admin_socket, None, OPERATORS_MAX, troubles, closing)?,
                by_their_end(),
            );
        tokio::try_join!(callers, operators)?;
        Ok(())
    }
}

/// Connections of operators at a time.
const OPERATORS_MAX: u32 = 32;

/// Both servers end by the end of what comes in: a connection that was accepted a moment before is served then. Without this
/// they would not wait for those that are open.
async fn by_their_end() {
    std::future::pending().await
}
