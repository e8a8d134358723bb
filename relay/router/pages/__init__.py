"""The Router's pages: views of its REST, for the people of one hospital."""
