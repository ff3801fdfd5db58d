package gen

import (
	"testing"

	_ "github.com/spacemeshos/api/release/go/spacemesh/v1"
	_ "github.com/spacemeshos/api/release/go/spacemesh/v2alpha1"
	_ "github.com/spacemeshos/api/release/go/spacemesh/v2beta1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "tweedle/edges/api/gen/gatewaypb"
	_ "tweedle/edges/api/gen/poetadminpb"
	_ "tweedle/edges/api/gen/poetpb"
)

// The protobuf runtime panics at start when two files claim one name; linking
// them together here is the test. The lookup proves that both sides are in.
func TestOurStubsLiveBesideTheEcosystems(t *testing.T) {
	for _, name := range []protoreflect.FullName{
		"spacemesh.v1.GatewayService", "spacemesh.v1.NodeService", "rpc.api.v1.PoetService",
	} {
		if _, err := protoregistry.GlobalFiles.FindDescriptorByName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
