//! The end-to-end tests are in `e2e`; `./test` starts the services they need.
