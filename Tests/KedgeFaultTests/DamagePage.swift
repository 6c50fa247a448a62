// docs/damage.md: its tables lie between comments that name them.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

enum DamagePage {
    /// A line of a table: what was done, and all that each command made of it.
    struct Row {
        let heads: [String]
        let cells: [Set<String>]

        var text: String {
            "| " + (heads + cells.map { $0.sorted().joined(separator: "; ") }).joined(separator: " | ") + " |"
        }
    }

    private static let path =
        #filePath.split(separator: "/").dropLast(3).map { "/\($0)" }.joined() + "/docs/damage.md"

    /// Holds one table of the page against what was found: the same rows; in each cell nothing that is not written
    /// there, and all of it where `isWhole` says that every case was tried.
    static func hold(_ name: String, _ columns: [String], _ rows: [Row], isWhole: Bool) throws {
        let file = try FileDescriptor.open(RawPath(path), [.read])
        let page = String(decoding: try file.readAll(limit: 1 << 20), as: UTF8.self)
        let (begin, end) = ("<!-- \(name) -->\n", "<!-- end -->\n")
        let parts = page.split(separator: begin, maxSplits: 1, omittingEmptySubsequences: false)
        try #require(parts.count == 2, "docs/damage.md has no table \"\(name)\"")
        let rest = parts[1].split(separator: end, maxSplits: 1, omittingEmptySubsequences: false)
        try #require(rest.count == 2)
        if getenv("KEDGE_TEST_WRITE") != nil {
            let header = "| " + columns.joined(separator: " | ") + " |\n|" + columns.map { _ in "---|" }.joined() + "\n"
            let table = header + rows.map { $0.text + "\n" }.joined()
            _ = try DurableFile.write(
                Array("\(parts[0])\(begin)\(table)\(end)\(rest[1])".utf8), to: RawPath(path), replacing: true,
                random: SystemRandomSource())
            return
        }
        let written = rest[0].split(separator: "\n").dropFirst(2).map { line in
            line.split(separator: "|").map { $0.drop { $0 == " " }.split(separator: " ").joined(separator: " ") }
        }
        let hint = "docs/damage.md is not up to date: run again with KEDGE_TEST_WRITE=1 KEDGE_TEST_SOAK=1"
        #expect(written.map { Array($0.prefix(columns.count - rows[0].cells.count)) } == rows.map(\.heads), "\(hint)")
        for (row, line) in zip(rows, written) where line.count == columns.count {
            for (found, text) in zip(row.cells, line.suffix(row.cells.count)) {
                let allowed = Set(text.split(separator: "; ").map { String($0) })
                #expect(isWhole ? found == allowed : found.isSubset(of: allowed), "\(row.heads): \(hint)")
            }
        }
        #expect(written.allSatisfy { $0.count == columns.count }, "\(hint)")
    }
}
