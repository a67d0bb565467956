"""The Ray Serve application: a deployment for the backbone, each attribute tool and rank, behind an HTTP ingress."""
