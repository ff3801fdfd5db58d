// Package azcore stands where Prometheus's remote storage imports the core of
// Microsoft's cloud. There is nothing behind the names: azidentity refuses all.
package azcore

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// ClientOptions names a cloud.
type ClientOptions struct{ Cloud cloud.Configuration }

// AccessToken is one that nobody gives.
type AccessToken struct {
	Token     string
	ExpiresOn time.Time
}

// TokenCredential has no implementation here.
type TokenCredential interface {
	GetToken(context.Context, policy.TokenRequestOptions) (AccessToken, error)
}
