// What a drill leaves beside its directory so that the next one knows what to do with it. The decision is pure.
//
//   drill-directory/drill-ID.json    the marker: written and durable before the directory is made, removed after it,
//                                    locked as long as the drill that made it lives
//   drill-directory/drill-ID/        everything else of that drill
//
// So there is never a directory of ours without a marker, and what has no marker is not ours.

package import KedgeCore

/// The names of one drill's marker and directory. 64 random bits: a Unix socket's path has at most 107 bytes.
package struct ScratchName: Hashable, Sendable {
    package let id: String

    package init(random: any RandomSource) {
        let digits = String(random.next(), radix: 16)
        id = String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }

    /// From the name of a marker. Nil for any other file.
    package init?(marker: RawPath) {
        guard let text = marker.text, text.hasPrefix("drill-"), text.hasSuffix(".json"), text.utf8.count == 27 else {
            return nil
        }
        let id = text.dropFirst(6).dropLast(5)
        guard id.utf8.allSatisfy({ $0.isHexDigit && !(0x41...0x46).contains($0) }) else { return nil }
        self.id = String(id)
    }

    package var marker: String { "drill-\(id).json" }
    package var directory: String { "drill-\(id)" }
    /// Where the socket goes when its path below the drill-directory would be too long.
    package var shortSocketDirectory: RawPath { RawPath("/tmp/kedge-drill-\(id)") }
}

/// What a marker says.
package struct ScratchMarker: Hashable, Sendable {
    package var id: String
    package var cluster: String
    package var host: String
    package var process: Int32
    package var created: Timestamp
    /// The server was left running on purpose.
    package var isKept: Bool
    /// Whether the socket lies in `ScratchName.shortSocketDirectory`.
    package var hasShortSocket: Bool

    package init(
        id: String, cluster: String, host: String, process: Int32, created: Timestamp, isKept: Bool = false,
        hasShortSocket: Bool = false
    ) {
        self.id = id
        self.cluster = cluster
        self.host = host
        self.process = process
        self.created = created
        self.isKept = isKept
        self.hasShortSocket = hasShortSocket
    }

    package var bytes: [UInt8] {
        let json: JSONValue = [
            "purpose": .string(ScratchMarker.purpose), "id": .string(id), "cluster": .string(cluster),
            "host": .string(host), "process": .int(process), "created": .string(created.description),
            "kept": .bool(isKept), "shortSocket": .bool(hasShortSocket),
        ]
        return Array((json.compactText + "\n").utf8)
    }

    /// Nil for anything that `bytes` did not give.
    package init?(parsing bytes: [UInt8]) {
        do throws(KedgeError) {
            let record = try JSONRecord(parsing: bytes, what: "marker")
            guard try record.string("purpose") == ScratchMarker.purpose else { return nil }
            id = try record.string("id")
            cluster = try record.string("cluster")
            host = try record.string("host")
            process = try record.integer("process")
            created = try record.parsed("created") { Timestamp(record: $0) }
            isKept = try record.bool("kept")
            hasShortSocket = try record.bool("shortSocket")
        } catch {
            return nil
        }
    }

    private static let purpose = "scratch directory of kedge drill"
}

/// What is done about one marker that was found.
package enum ScratchAction: Hashable, Sendable {
    /// Stop what runs there, remove the directory, then the marker.
    case remove
    /// Only the marker: its maker died before there was a directory.
    case removeMarker
    case leave(Reason)

    package enum Reason: Hashable, Sendable {
        /// Its drill is alive.
        case running
        /// Somebody asked for it to stay.
        case kept
        /// It is not a marker of ours, although it is called like one.
        case foreign
    }

    /// Decides. `marker` is nil where the file does not parse; `isLocked`: by another process.
    package static func decide(
        _ name: ScratchName, marker: ScratchMarker?, isLocked: Bool, hasDirectory: Bool, includesKept: Bool
    ) -> ScratchAction {
        if isLocked { return .leave(.running) }
        guard let marker else {
            // A marker is made empty, and cut only by the crash of its maker: before it made a directory.
            return hasDirectory ? .leave(.foreign) : .removeMarker
        }
        guard marker.id == name.id else { return .leave(.foreign) }
        if marker.isKept && !includesKept { return .leave(.kept) }
        return .remove
    }
}
