;; Wants what nobody offers.
(component
  (import "host:secrets/vault@1.0.0" (instance))
  (core module $code (func (export "price") (param i32) (result i32) (local.get 0)))
  (core instance $i (instantiate $code))
  (func (export "price") (param "cents" u32) (result u32) (canon lift (core func $i "price"))))
