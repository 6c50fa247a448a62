// Is there room for a restore? Counted for each file system, since tablespaces may lie on others than the data
// directory.

package import KedgeCore

/// Holds what a restore will write against what is free.
package enum RestoreSpace {
    /// What will be written below one directory.
    package struct Need: Hashable, Sendable {
        package let path: RawPath
        package let bytes: UInt64
        /// Files and directories.
        package let inodes: UInt64
        /// What to do other than making room, as the end of a sentence.
        package let hint: String

        package init(path: RawPath, bytes: UInt64, inodes: UInt64, hint: String) {
            self.path = path
            self.bytes = bytes
            self.inodes = inodes
            self.hint = hint
        }
    }

    /// Throws `no-space` for the first need that its file system cannot meet together with those before it.
    ///
    /// `space` tells the file system of a path that may not exist yet.
    package static func check(
        _ needs: [Need], space: (RawPath) throws(KedgeError) -> FileSystemSpace
    ) throws(KedgeError) {
        var sums: [RawPath: (bytes: UInt64, inodes: UInt64)] = [:]
        for need in needs {
            let found = try space(need.path)
            let before = sums[found.mountPoint] ?? (0, 0)
            let bytes = sum(before.bytes, need.bytes)
            let inodes = sum(before.inodes, need.inodes)
            sums[found.mountPoint] = (bytes, inodes)
            if bytes > found.freeBytes { throw error(need, found, "bytes", needed: bytes, free: found.freeBytes) }
            if found.totalInodes > 0 && inodes > found.freeInodes {
                throw error(need, found, "inodes (files and directories)", needed: inodes, free: found.freeInodes)
            }
        }
    }

    private static func sum(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }

    private static func error(
        _ need: Need, _ space: FileSystemSpace, _ unit: String, needed: UInt64, free: UInt64
    ) -> KedgeError {
        KedgeError(
            .noSpace, "cannot restore into \"\(need.path)\": the file system has not enough room",
            detail: "The file system at \"\(space.mountPoint)\" has \(free) \(unit) free, and \(needed) are needed: "
                + "\(needed - free) are missing.",
            hint: "Free space there or make it larger, or \(need.hint)  Nothing was written.")
    }
}
