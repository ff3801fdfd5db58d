// Package poetpb is generated from api/proto/rpc/api/v1: the PoET server's
// public API. It embeds its OpenAPI document.
package poetpb

import _ "embed"

// OpenAPI is the REST API's description, in OpenAPI 2.0.
//
//go:embed poet.swagger.json
var OpenAPI []byte //nolint:gochecknoglobals // embedded files are variables
