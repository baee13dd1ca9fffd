//! `grpc.Health`.

use agent_protocol::health::health_check_response::ServingStatus;
use agent_protocol::health::{CheckRequest, HealthCheckResponse, VersionCheckResponse};
use agent_protocol::health_ttrpc::Health;
use async_trait::async_trait;
use ttrpc::r#async::TtrpcContext;

/// The version of the protocol that Kata's agents answer.
const GRPC_VERSION: &str = "0.0.1";

pub(super) struct HealthCalls;

#[async_trait]
impl Health for HealthCalls {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse {
            status: ServingStatus::SERVING.into(),
            ..HealthCheckResponse::default()
        })
    }

    async fn version(
        &self,
        _: &TtrpcContext,
        _: CheckRequest,
    ) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: GRPC_VERSION.to_owned(),
            agent_version: super::VERSION.to_owned(),
            ..VersionCheckResponse::default()
        })
    }
}
