//! Who may ask: certificates, tokens, nobody.

use http::Method;

use crate::harness::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_tokens_and_health() {
    let cluster = Cluster::start().await;
    let kubeconfig = cluster.server.admin_kubeconfig(&cluster.server.url());
    let mut anonymous = kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap();
    for user in &mut anonymous.auth_infos {
        user.auth_info = Some(kube::config::AuthInfo::default());
    }
    let config = kube::Config::from_custom_kubeconfig(anonymous, &Default::default()).await.unwrap();
    let nobody = kube::Client::try_from(config).unwrap();
    let ask = async |path: &str, token: &str| {
        let mut request = http::Request::builder().method(Method::GET).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        nobody.send(request.body(Vec::new().into()).unwrap()).await.unwrap().status().as_u16()
    };
    for (path, token, code) in [
        ("/healthz", "", 200),
        ("/livez", "", 200),
        ("/readyz?verbose", "", 200),
        ("/version", "", 200),
        ("/api", "", 401),
        ("/api/v1/pods", "", 401),
        ("/metrics", "", 401),
        ("/api/v1/pods", "wrong", 401),
        ("/api/v1/pods", cluster.server.admin_token(), 200),
    ] {
        assert_eq!(ask(path, token).await, code, "{path}");
    }
    cluster.stop().await;
}
