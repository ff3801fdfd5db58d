// Package azidentity stands where Prometheus's remote storage imports the
// credentials of Microsoft's cloud. The watch has none: each is refused.
package azidentity

import (
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
)

// ErrNone says what is not there.
var ErrNone = errors.New("this watch has no credentials of Microsoft's cloud: remove azuread")

// ClientID names a managed identity.
type ClientID string

// Options of the credentials.
type (
	ManagedIdentityCredentialOptions struct {
		ClientOptions azcore.ClientOptions
		ID            ClientID
	}
	WorkloadIdentityCredentialOptions struct {
		ClientOptions                     azcore.ClientOptions
		ClientID, TenantID, TokenFilePath string
	}
	ClientSecretCredentialOptions struct{ ClientOptions azcore.ClientOptions }
	DefaultAzureCredentialOptions struct {
		ClientOptions azcore.ClientOptions
		TenantID      string
	}
	ClientCertificateCredentialOptions struct {
		ClientOptions        azcore.ClientOptions
		SendCertificateChain bool
	}
)

// NewManagedIdentityCredential refuses.
func NewManagedIdentityCredential(*ManagedIdentityCredentialOptions) (azcore.TokenCredential, error) {
	return nil, ErrNone
}

// NewWorkloadIdentityCredential refuses.
func NewWorkloadIdentityCredential(*WorkloadIdentityCredentialOptions) (azcore.TokenCredential, error) {
	return nil, ErrNone
}

// NewClientSecretCredential refuses.
func NewClientSecretCredential(_, _, _ string, _ *ClientSecretCredentialOptions) (azcore.TokenCredential, error) {
	return nil, ErrNone
}

// NewDefaultAzureCredential refuses.
func NewDefaultAzureCredential(*DefaultAzureCredentialOptions) (azcore.TokenCredential, error) {
	return nil, ErrNone
}

// ParseCertificates refuses.
func ParseCertificates(_, _ []byte) ([]*x509.Certificate, crypto.PrivateKey, error) {
	return nil, nil, ErrNone
}

// NewClientCertificateCredential refuses.
func NewClientCertificateCredential(_, _ string, _ []*x509.Certificate, _ crypto.PrivateKey, _ *ClientCertificateCredentialOptions) (azcore.TokenCredential, error) {
	return nil, ErrNone
}
