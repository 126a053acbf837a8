//! The xDS servers: subscriptions, versions, push order, and the status acknowledgements add up to.
