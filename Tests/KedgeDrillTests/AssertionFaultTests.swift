// Proves that a check file that is no SQL, or names a database that is not there, is told from a check that failed.
import KedgeCore
import Testing

@testable import KedgeDrill

@Suite struct AssertionFaultTests {
    private func refused(_ state: String) -> KedgeError {
        KedgeError(.databaseRefused, "could not run the check", detail: "ERROR:  x (SQLSTATE \(state))")
    }

    @Test("only a syntax error and a \\connect to no database are the file's own fault")
    func faults() {
        let plain = Assertion(sql: "selec true", line: 7, database: nil)
        let error = plain.fault(refused("42601"))
        #expect(error?.code == .configuration && error?.message.contains("line 7") == true)
        // A lost table, a lost function, a division by zero, a page that cannot be read.
        for state in ["42P01", "42883", "22012", "XX001", "58P01", "42501"] {
            #expect(plain.fault(refused(state)) == nil, "\(state)")
        }
        #expect(plain.fault(KedgeError(.databaseUnavailable, "x", detail: "SQLSTATE 42601")) == nil)
        let gone = KedgeError(.databaseUnavailable, "x", detail: "FATAL:  database \"shop\" does not exist")
        #expect(Assertion(sql: "x", line: 1, database: "shop").fault(gone)?.code == .configuration)
        // Of the database that the configuration names: it may be what was lost.
        #expect(plain.fault(gone) == nil)
        #expect(Assertion(sql: "x", line: 1, database: "other").fault(gone) == nil)
    }
}
