//! Tests of the suite that look at statuses alone.

use super::super::tests::check;

#[test]
fn routes_of_tls() {
    // TLSRouteInvalidBackendRefNonexistent, TLSRouteInvalidBackendRefUnknownKind, TLSRouteInvalidNoMatchingListener,
    // TLSRouteInvalidNoMatchingListenerHostname, TLSRouteListenerPassthroughSupportedKinds,
    // TLSRouteListenerTerminateSupportedKinds, TLSRouteMixedTerminationSameNamespace.
    check(
        "
        secret a/cert
        service a/tls 443
        gateway a/pass address=127.0.0.1 | tls TLS:443 kinds=TCPRoute,TLSRoute passthrough
        gateway a/http address=127.0.0.2 | http HTTP:80
        gateway a/https address=127.0.0.3 | https HTTPS:443 cert=cert
        gateway a/exact address=127.0.0.4 | tls TLS:443 host=www.example.com passthrough
        gateway a/wild address=127.0.0.5 | tls TLS:443 host=*.example.com passthrough
        gateway a/mixed address=127.0.0.6 | ends TLS:8883 host=tls.example.com cert=cert | goes-on TLS:8883 host=abc.example.com passthrough
        TLSRoute a/missing parents=pass hosts=example.com to=nonexistent:443
        TLSRoute a/kind parents=pass hosts=example.com to=NonExistent@tls:443
        TLSRoute a/section parents=pass#none hosts=example.com to=tls:443
        TLSRoute a/of-http parents=http hosts=example.com to=tls:443
        TLSRoute a/of-https parents=https hosts=example.com to=tls:443
        TLSRoute a/exact parents=exact hosts=www.nomatch.com,*.nomatch.com to=tls:443
        TLSRoute a/wild parents=wild hosts=www.different.com,*.different.com to=tls:443
        TLSRoute a/ends parents=mixed hosts=tls.example.com to=tls:443
        TLSRoute a/goes-on parents=mixed hosts=abc.example.com to=tls:443",
        "
        Gateway a/pass 127.0.0.1
          tls 2 TLSRoute ResolvedRefs=False/InvalidRouteKinds
        Gateway a/http 127.0.0.2
          http 0 HTTPRoute,GRPCRoute
        Gateway a/https 127.0.0.3
          https 0 HTTPRoute,GRPCRoute
        Gateway a/exact 127.0.0.4
          tls 0 TLSRoute
        Gateway a/wild 127.0.0.5
          tls 0 TLSRoute
        Gateway a/mixed 127.0.0.6
          ends 1 TLSRoute
          goes-on 1 TLSRoute
        TLSRoute a/missing < pass ResolvedRefs=False/BackendNotFound
        TLSRoute a/kind < pass ResolvedRefs=False/InvalidKind
        TLSRoute a/section < pass#none Accepted=False/NoMatchingParent
        TLSRoute a/of-http < http Accepted=False/NotAllowedByListeners
        TLSRoute a/of-https < https Accepted=False/NotAllowedByListeners
        TLSRoute a/exact < exact Accepted=False/NoMatchingListenerHostname
        TLSRoute a/wild < wild Accepted=False/NoMatchingListenerHostname
        TLSRoute a/ends < mixed
        TLSRoute a/goes-on < mixed
        ",
    );
}

#[test]
fn gateways() {
    // GatewayInvalidListenersUnsupportedProtocol, GatewayInvalidRouteKind, GatewayInvalidTLSConfiguration,
    // GatewayWithAttachedRoutes.
    check(
        "
        namespace a team=infra
        secret a/malformed bad
        service a/v1 8080
        gateway a/unsupported | invalid INVALID:1111
        gateway a/partly address=127.0.0.2 | http HTTP:80 | invalid INVALID:1111
        gateway a/kind address=127.0.0.3 | http HTTP:80 from=All kinds=InvalidRoute
        gateway a/kinds address=127.0.0.4 | http HTTP:80 from=All kinds=InvalidRoute,HTTPRoute
        gateway a/no-secret address=127.0.0.5 | https HTTPS:443 from=All cert=nonexistent
        gateway a/secret-kind address=127.0.0.6 | https HTTPS:443 from=All cert=WrongKind:malformed
        gateway a/malformed address=127.0.0.7 | https HTTPS:443 from=All cert=malformed
        gateway a/one address=127.0.0.8 | http HTTP:80 from=team:infra kinds=HTTPRoute
        gateway a/two address=127.0.0.9 | http HTTP:80 host=foo.example.com from=team:infra kinds=HTTPRoute
        gateway a/unresolved address=127.0.0.10 | tls HTTPS:443 from=team:infra kinds=HTTPRoute cert=nonexistent
        HTTPRoute a/one parents=one to=v1:8080
        HTTPRoute a/two parents=two to=v1:8080
        HTTPRoute a/three parents=two to=v1:8080
        HTTPRoute a/not parents=two hosts=not-accepted.test.com to=v1:8080
        HTTPRoute a/four parents=unresolved#tls to=nonexistent:8080",
        "
        Gateway a/unsupported Accepted=False/ListenersNotValid Programmed=False/Invalid
          invalid 0  Accepted=False/UnsupportedProtocol Programmed=False/Invalid
        Gateway a/partly 127.0.0.2 Accepted=True/ListenersNotValid
          http 0 HTTPRoute,GRPCRoute
          invalid 0  Accepted=False/UnsupportedProtocol Programmed=False/Invalid
        Gateway a/kind 127.0.0.3
          http 0  ResolvedRefs=False/InvalidRouteKinds
        Gateway a/kinds 127.0.0.4
          http 0 HTTPRoute ResolvedRefs=False/InvalidRouteKinds
        Gateway a/no-secret Programmed=False/Invalid
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        Gateway a/secret-kind Programmed=False/Invalid
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        Gateway a/malformed Programmed=False/Invalid
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        Gateway a/one 127.0.0.8
          http 1 HTTPRoute
        Gateway a/two 127.0.0.9
          http 2 HTTPRoute
        Gateway a/unresolved Programmed=False/Invalid
          tls 1 HTTPRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        HTTPRoute a/one < one
        HTTPRoute a/two < two
        HTTPRoute a/three < two
        HTTPRoute a/not < two Accepted=False/NoMatchingListenerHostname
        HTTPRoute a/four < unresolved#tls ResolvedRefs=False/BackendNotFound
        ",
    );
}
