// Package cloud has the names of Microsoft's clouds, and nothing that reaches them.
package cloud

// Configuration is empty.
type Configuration struct{}

// The clouds.
var AzureChina, AzureGovernment, AzurePublic Configuration
