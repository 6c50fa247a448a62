// A host that has seen another repository than the one that lies there.
package import KedgeCore
import KedgeRepository

/// What such a host remembers, without a file.
package struct StrangePlace: PlaceMemory {
    package let place = "path \"/backup\""
    package let locations = ["/notes/place"]

    package init() {}

    package func known() -> [RandomID?] { [RandomID(high: 1, low: 2)] }

    package func remember(_ repository: RandomID) {}
}
