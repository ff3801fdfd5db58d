package front

import (
	"crypto/tls"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// SecurePrefix marks the address of a gRPC listener with a certificate.
const SecurePrefix = "https://"

// Dial returns a connection to a gRPC listener: host:port or unix:PATH in plain text, or
// https://host:port, whose certificate somebody must vouch for whom this machine trusts.
func Dial(address string, extra ...grpc.DialOption) (*grpc.ClientConn, error) {
	const asItIs = "passthrough:///" // names are looked up for each connection
	target, speak := asItIs+address, insecure.NewCredentials()
	if strings.HasPrefix(address, UnixPrefix) {
		target = address
	} else if to, secure := strings.CutPrefix(address, SecurePrefix); secure {
		target, speak = asItIs+to, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	return grpc.NewClient(target, append([]grpc.DialOption{grpc.WithTransportCredentials(speak)}, extra...)...)
}
