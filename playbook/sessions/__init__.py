"""Sessions that outlive performances: one that is lent to one performance after another (`kept`), and who lends them (`pool`)."""
