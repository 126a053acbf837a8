//! Where the mesh is kept: transactions, revisions, history, watching.
