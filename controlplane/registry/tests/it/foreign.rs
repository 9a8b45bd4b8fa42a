//! `oci-client` pushes in chunks and whole, and reads back what it pushed.

use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    secrets::RegistryAuth,
};

use super::Served;

#[tokio::test]
async fn what_a_client_pushes_it_pulls() {
    let served = Served::start().await;
    // More than a chunk of this client, which is 4 MiB.
    let wasm: Vec<u8> = (0..9_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (tag, whole) in [("chunked", false), ("whole", true)] {
        let config =
            ClientConfig { protocol: ClientProtocol::Http, use_monolithic_push: whole, ..ClientConfig::default() };
        let client = Client::try_from(config).unwrap();
        let image: Reference = format!("{}/demo/app-{tag}:{tag}", served.host()).parse().unwrap();
        let layers = [ImageLayer::new(wasm.clone(), "application/wasm".to_owned(), None)];
        let config = Config::new(b"{}".to_vec(), "application/vnd.wasm.config.v0+json".to_owned(), None);
        client.push(&image, &layers, config, &RegistryAuth::Anonymous, None).await.unwrap();
        let pulled = client.pull(&image, &RegistryAuth::Anonymous, vec!["application/wasm"]).await.unwrap();
        assert!(pulled.layers[0].data == wasm, "{tag}");
        let tags = client.list_tags(&image, &RegistryAuth::Anonymous, None, None).await.unwrap();
        assert_eq!(tags.tags, [tag]);
        let digest = client.fetch_manifest_digest(&image, &RegistryAuth::Anonymous).await.unwrap();
        assert_eq!(Some(digest), pulled.digest);
    }
}
