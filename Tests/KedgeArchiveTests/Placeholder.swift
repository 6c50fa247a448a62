// (first file to come)
